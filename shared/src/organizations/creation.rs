//! The creation of an organization. A request stores it as PENDING with its founder; a saga then sets it to COMMITTED,
//! or to FAILED.

use crate::{
    db::{DbError, OrgTx},
    ids::{OrgId, SagaId, UserId},
    saga::{self, SagaKind},
    tenancy::{OrgStatus, Role},
};

/// Stores the transaction's organization as PENDING, with its founder as the owner, and starts the saga that opens it.
///
/// # Errors
/// When the database does not answer.
pub async fn found(
    tx: &mut OrgTx,
    founder: UserId,
    founder_name: &str,
    name: &str,
) -> Result<SagaId, DbError> {
    let org = tx.org();
    sqlx::query!(
        "INSERT INTO orgs (id, name, slug, status) VALUES ($1, $2, $3, $4)",
        org as OrgId,
        name,
        slug(name),
        OrgStatus::Pending as OrgStatus
    )
    .execute(tx.conn())
    .await?;
    sqlx::query!(
        "INSERT INTO members (org_id, user_id, user_name, role) VALUES ($1, $2, $3, $4)",
        org as OrgId,
        founder as UserId,
        founder_name,
        Role::Owner as Role
    )
    .execute(tx.conn())
    .await?;
    saga::start(tx, SagaKind::CreateOrganization, founder).await
}

/// Reserves the pending organization's slug, which is unique among all organizations. Returns whether it was free.
///
/// # Errors
/// When the database does not answer.
pub async fn reserve_slug(tx: &mut OrgTx) -> Result<bool, DbError> {
    let org = tx.org();
    let reserved = sqlx::query!(
        "INSERT INTO org_slugs (slug, org_id) SELECT slug, id FROM orgs WHERE id = $1 AND status = 'PENDING'",
        org as OrgId
    )
    .execute(tx.conn())
    .await
    .map_err(DbError::from);
    match reserved {
        Ok(_) => Ok(true),
        Err(DbError::Constraint(name)) if name == "org_slugs_pkey" => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sets an organization whose creation failed to FAILED, and deletes its members and content. Its row remains.
///
/// # Errors
/// When the database does not answer.
pub async fn abandon(tx: &mut OrgTx) -> Result<(), DbError> {
    let org = tx.org();
    sqlx::query!("DELETE FROM org_slugs WHERE org_id = $1", org as OrgId).execute(tx.conn()).await?;
    sqlx::query!("DELETE FROM members WHERE org_id = $1", org as OrgId).execute(tx.conn()).await?;
    // An import also stored configuration and projects. Foreign keys delete the values and history with the head.
    sqlx::query!("DELETE FROM config_heads WHERE org_id = $1", org as OrgId).execute(tx.conn()).await?;
    sqlx::query!("DELETE FROM projects WHERE org_id = $1", org as OrgId).execute(tx.conn()).await?;
    sqlx::query!(
        "UPDATE orgs SET status = 'FAILED', version = version + 1, updated_at = now()
          WHERE id = $1 AND status = 'PENDING'",
        org as OrgId
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Sets a pending organization to COMMITTED. Returns whether it was pending.
///
/// # Errors
/// When the database does not answer.
pub async fn open(tx: &mut OrgTx) -> Result<bool, DbError> {
    change_status(tx, OrgStatus::Pending, OrgStatus::Committed).await
}

/// Sets a committed organization back to PENDING. Returns whether it was committed.
///
/// # Errors
/// When the database does not answer.
pub async fn withdraw(tx: &mut OrgTx) -> Result<bool, DbError> {
    change_status(tx, OrgStatus::Committed, OrgStatus::Pending).await
}

async fn change_status(tx: &mut OrgTx, from: OrgStatus, to: OrgStatus) -> Result<bool, DbError> {
    let org = tx.org();
    let changed = sqlx::query!(
        "UPDATE orgs SET status = $3, version = version + 1, updated_at = now() WHERE id = $1 AND status = $2",
        org as OrgId,
        from as OrgStatus,
        to as OrgStatus
    )
    .execute(tx.conn())
    .await?;
    Ok(changed.rows_affected() == 1)
}

/// A readable name for URLs and namespaces. Its random suffix makes collisions unlikely, and hides whether another
/// organization has the same name.
fn slug(name: &str) -> String {
    const MAX_LENGTH: usize = 40;
    const ALPHABET: &[u8] = b"23456789abcdefghjkmnpqrstuvwxyz";
    let mut words = String::new();
    for character in name.chars().map(|character| character.to_ascii_lowercase()) {
        if words.len() >= MAX_LENGTH {
            break;
        }
        if character.is_ascii_alphanumeric() {
            words.push(character);
        } else if !words.is_empty() && !words.ends_with('-') {
            words.push('-');
        }
    }
    let words = words.trim_end_matches('-');
    // A namespace's name must begin with a letter.
    let words = if words.starts_with(|first: char| first.is_ascii_alphabetic()) {
        words.to_owned()
    } else {
        format!("org-{words}").trim_end_matches('-').to_owned()
    };
    let suffix: String =
        (0..8).map(|_| char::from(ALPHABET[rand::random_range(0..ALPHABET.len())])).collect();
    format!("{words}-{suffix}")
}

#[cfg(test)]
mod tests {
    use super::slug;

    #[test]
    fn slugs_are_readable_and_end_in_a_random_suffix() {
        for (name, words) in [
            ("Northwind", "northwind"),
            ("  Ärzte & Söhne GmbH!", "rzte-s-hne-gmbh"),
            ("💉", "org"),
            ("42", "org-42"),
            (&"x".repeat(80), &"x".repeat(40)),
        ] {
            let slug = slug(name);
            let (prefix, suffix) = slug.rsplit_once('-').expect("it ends at random");
            assert_eq!((prefix, suffix.len()), (words, 8), "{name}");
        }
        assert_ne!(slug("a"), slug("a"));
    }
}

//! Creating an organization: everything that must not be lost is in one transaction, the saga does the rest.

use std::sync::Arc;

use atrium_shared::{
    audit::{self, Action, Change},
    crash_point::{CrashPoint, reached},
    db::{DbError, OrgTx},
    ids::{OrgId, SagaId},
    saga::{self, CREATE_ORGANIZATION},
    tenancy::Role,
};
use http::{HeaderValue, header};
use serde_json::json;

use super::Organization;
use crate::{
    http::{
        body, caller::SignedInUser, idempotency::IdempotentRequest, problem::Problem, request::Request,
        response::Response,
    },
    state::App,
};

/// `POST /v1/orgs`
///
/// # Errors
/// When the name is not one, or the database is away: then nothing was created.
pub async fn create(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let mut body = request.object().await?;
    let name = body.required("name", body::name);
    let name = body.finish(name)?;
    let idempotent = IdempotentRequest::of(request).await?;
    let user = request.signed_in_user()?;

    let id = OrgId::new();
    let mut tx = app.database.founding_tx(user.id, id).await?;
    if let Some(idempotent) = &idempotent
        && let Some(replayed) = idempotent.begin(&mut tx).await?
    {
        return Ok(replayed);
    }
    let accepted = found(&mut tx, user, &name).await?;
    let change = Change::new(Action::OrganizationCreated, "organization", id);
    let after = json!({ "name": name, "slug": accepted.organization.slug });
    audit::record(&mut tx, change.after(after)).await?;
    accepted.commit(tx, idempotent.as_ref()).await
}

/// An organization that was asked for.
pub(super) struct Accepted {
    organization: Organization,
    operation_id: SagaId,
}

/// Stores the transaction's organization as PENDING, with its founder as the owner, and starts the saga that opens it.
///
/// # Errors
/// When the database does not answer.
pub(super) async fn found(tx: &mut OrgTx, founder: &SignedInUser, name: &str) -> Result<Accepted, DbError> {
    let (id, slug) = (tx.org(), slug(name));
    sqlx::query("INSERT INTO orgs (id, name, slug, status) VALUES ($1, $2, $3, 'PENDING')")
        .bind(id)
        .bind(name)
        .bind(&slug)
        .execute(tx.conn())
        .await?;
    sqlx::query("INSERT INTO members (org_id, user_id, user_name, role) VALUES ($1, $2, $3, $4)")
        .bind(id)
        .bind(founder.id)
        .bind(&founder.name)
        .bind(Role::Owner)
        .execute(tx.conn())
        .await?;
    let input = json!({ "name": name, "slug": slug, "owner": founder.id });
    let operation_id = saga::start(tx, CREATE_ORGANIZATION, &input, founder.id).await?;
    let organization = super::read(tx, Role::Owner).await?;
    Ok(Accepted { organization, operation_id })
}

impl Accepted {
    /// Commits what was asked for, and says where the organization is, and where to watch how it comes to be.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(super) async fn commit(
        self,
        mut tx: OrgTx,
        idempotent: Option<&IdempotentRequest>,
    ) -> Result<Response, Problem> {
        let location =
            HeaderValue::try_from(format!("/v1/orgs/{}", self.organization.id)).map_err(Problem::internal)?;
        let mut response = super::accepted(self.organization, self.operation_id)?;
        response.headers_mut().insert(header::LOCATION, location);
        if let Some(idempotent) = idempotent {
            idempotent.record(&mut tx, &response).await?;
        }
        reached(CrashPoint::ApiBeforeCommit).await;
        tx.commit().await?;
        reached(CrashPoint::ApiAfterCommit).await;
        Ok(response)
    }
}

/// A readable name for addresses and namespaces. It ends at random, so that it is free, and so that nobody learns
/// from it whether another organization has the same name.
fn slug(name: &str) -> String {
    const LONGEST: usize = 40;
    const ALPHABET: &[u8] = b"23456789abcdefghjkmnpqrstuvwxyz";
    let mut words = String::new();
    for character in name.chars().map(|character| character.to_ascii_lowercase()) {
        if words.len() >= LONGEST {
            break;
        }
        if character.is_ascii_alphanumeric() {
            words.push(character);
        } else if !words.is_empty() && !words.ends_with('-') {
            words.push('-');
        }
    }
    let words = words.trim_end_matches('-');
    // A namespace must begin with a letter.
    let words = if words.starts_with(|first: char| first.is_ascii_alphabetic()) {
        words.to_owned()
    } else {
        format!("org-{words}").trim_end_matches('-').to_owned()
    };
    let ending: String =
        (0..8).map(|_| char::from(ALPHABET[rand::random_range(0..ALPHABET.len())])).collect();
    format!("{words}-{ending}")
}

#[cfg(test)]
mod tests {
    use super::slug;

    #[test]
    fn slugs_are_names_for_addresses() {
        for (name, words) in [
            ("Northwind", "northwind"),
            ("  Ärzte & Söhne GmbH!", "rzte-s-hne-gmbh"),
            ("💉", "org"),
            ("42", "org-42"),
            (&"x".repeat(80), &"x".repeat(40)),
        ] {
            let slug = slug(name);
            let (beginning, ending) = slug.rsplit_once('-').expect("it ends at random");
            assert_eq!((beginning, ending.len()), (words, 8), "{name}");
        }
        assert_ne!(slug("a"), slug("a"));
    }
}

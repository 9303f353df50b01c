//! Creating an organization: everything that must not be lost is in one transaction, the saga does the rest.

use std::sync::Arc;

use atrium_shared::{
    audit::{self, Action, Change},
    ids::OrgId,
    saga::{self, CREATE_ORGANIZATION},
    tenancy::Role,
};
use http::{HeaderValue, header};
use serde_json::json;

use crate::{
    edge::{body, idempotency::Intention, problem::Problem, request::Request, respond::Response},
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
    let intention = Intention::of(request).await?;
    let identity = request.identity()?;

    let id = OrgId::new();
    let mut tx = app.database.founding_tx(identity.user, id).await?;
    if let Some(intention) = &intention
        && let Some(replayed) = intention.begin(&mut tx).await?
    {
        return Ok(replayed);
    }
    let slug = slug(&name);
    sqlx::query("INSERT INTO orgs (id, name, slug, status) VALUES ($1, $2, $3, 'PENDING')")
        .bind(id)
        .bind(&name)
        .bind(&slug)
        .execute(tx.conn())
        .await?;
    sqlx::query("INSERT INTO members (org_id, user_id, user_key, role) VALUES ($1, $2, $3, $4)")
        .bind(id)
        .bind(identity.user)
        .bind(&identity.key)
        .bind(Role::Owner)
        .execute(tx.conn())
        .await?;
    let input = json!({ "name": name, "slug": slug, "owner": identity.user });
    let operation_id = saga::start(&mut tx, CREATE_ORGANIZATION, &input, identity.user).await?;
    let organization = super::read(&mut tx, Role::Owner).await?;
    let change = Change::new(Action::OrganizationCreated, "organization", id);
    audit::record(&mut tx, change.after(json!({ "name": name, "slug": slug }))).await?;

    let mut response = super::accepted(organization, operation_id)?;
    let location = HeaderValue::try_from(format!("/v1/orgs/{id}")).map_err(Problem::internal)?;
    response.headers_mut().insert(header::LOCATION, location);
    if let Some(intention) = &intention {
        intention.record(&mut tx, &response).await?;
    }
    tx.commit().await?;
    Ok(response)
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

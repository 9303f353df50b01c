//! Demo data, created through the public API.

use atrium_harness::client::Client;
use atrium_harness::guest::{Guest, patiently};

/// Organizations, their projects, and the roles of their members: with the founders, ten guests.
const DEMO: [(&str, &[&str], &[&str]); 3] = [
    ("Harbor Works", &["Crane control", "Tide board"], &["admin", "member", "member"]),
    ("Cedar Clinic", &["Appointments", "Night shift"], &["admin", "viewer"]),
    ("Lantern Press", &["Autumn issue"], &["admin", "member"]),
];

/// The actions in each project's chat, in turn.
const ACTIONS: [&str; 5] = ["ready", "thumbs_up", "in_review", "tests_green", "deployed"];

/// An organization of the demo, and a code with which one more person can join it.
#[derive(Clone, Debug)]
pub(crate) struct Invitation {
    /// The organization's name.
    pub(crate) organization: String,
    /// Lets one person join as an admin.
    pub(crate) code: String,
}

/// What was created.
#[derive(Clone, Debug, Default)]
pub(crate) struct Demo {
    /// One code for each organization.
    pub(crate) invitations: Vec<Invitation>,
    /// The number of guests.
    pub(crate) guests: usize,
    /// The number of projects.
    pub(crate) projects: usize,
    /// The number of pressed actions.
    pub(crate) actions: usize,
}

/// Creates the demo data.
///
/// # Errors
/// If the API rejects any of it.
pub(crate) async fn create(client: &Client) -> anyhow::Result<Demo> {
    let mut demo = Demo::default();
    for (organization, projects, roles) in DEMO {
        let founder = Guest::sign_in(client).await?;
        let org = founder.organization(organization).await?;
        let mut people = vec![(founder.clone(), "owner")];
        for role in roles {
            people.push((founder.invite_guest(&org, role).await?, role));
        }
        for name in projects {
            let project = founder.project(&org, name).await?;
            demo.actions += chat(&org, &project, &people).await?;
            demo.projects += 1;
        }
        demo.guests += people.len();
        let code = founder.invite(&org, "admin").await?;
        demo.invitations.push(Invitation { organization: organization.to_owned(), code });
    }
    Ok(demo)
}

/// All members except viewers press an action, then close the window.
async fn chat(org: &str, project: &str, people: &[(Guest, &str)]) -> anyhow::Result<usize> {
    let mut pressed = 0;
    for (turn, (guest, role)) in people.iter().enumerate() {
        if *role == "viewer" {
            continue;
        }
        let window = guest.open_chat(org, project).await?;
        for action in ACTIONS.iter().cycle().skip(turn).take(3) {
            guest.press(&window, action).await?;
            pressed += 1;
        }
        let path = format!("{}/sessions/{}", window.chat, window.session);
        patiently(|| guest.client.delete(&path)).await?.expect_status(204)?;
    }
    Ok(pressed)
}

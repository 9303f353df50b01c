//! An organization's configuration at one revision: immutable, and shared as a whole by its readers.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use serde_json::Value;
use strum::{IntoStaticStr, VariantArray};
use time::OffsetDateTime;

use super::Effective;
use crate::{
    db::{DbError, OrgTx},
    ids::{OrgId, ProjectId},
};

/// The layer that a value comes from. A later layer overrides an earlier one.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    schemars::JsonSchema,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Source {
    /// Built into the code.
    Builtin,
    /// Set by the operator for all organizations.
    Default,
    /// Set for the organization.
    Organization,
    /// Set for the project.
    Project,
}

/// The values set in one organization, as stored.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// Their revision; 0 before the first.
    pub revision: i64,
    /// When that revision was created.
    pub changed_at: Option<OffsetDateTime>,
    /// Set for the organization.
    pub organization: BTreeMap<String, Value>,
    /// Set for its projects.
    pub projects: HashMap<ProjectId, BTreeMap<String, Value>>,
}

impl Values {
    /// Reads one consistent state.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn read(tx: &mut OrgTx) -> Result<Self, DbError> {
        let org = tx.org();
        // One statement sees one snapshot of the database: a revision with exactly its values.
        let rows = sqlx::query!(
            r#"SELECT head.revision, head.changed_at, config.project_id AS "project_id: ProjectId",
                    config.key AS "key?", config.value AS "value?"
               FROM config_heads head LEFT JOIN config_values config ON config.org_id = head.org_id
              WHERE head.org_id = $1"#,
            org as OrgId
        )
        .fetch_all(tx.conn())
        .await?;
        let mut values = Self::default();
        for row in rows {
            (values.revision, values.changed_at) = (row.revision, Some(row.changed_at));
            let (Some(key), Some(value)) = (row.key, row.value) else {
                continue;
            };
            match row.project_id {
                None => values.organization.insert(key, value),
                Some(project) => values.projects.entry(project).or_default().insert(key, value),
            };
        }
        Ok(values)
    }
}

/// The effective configuration of one organization at one revision, based on one revision of the platform
/// configuration.
#[derive(Clone, Debug)]
pub struct Snapshot {
    org: OrgId,
    values: Values,
    organization: Effective,
    projects: HashMap<ProjectId, Effective>,
}

impl Snapshot {
    /// Merges an organization's values into the platform's.
    ///
    /// # Errors
    /// When a value does not have its key's type.
    pub fn build(
        org: OrgId,
        platform: &BTreeMap<String, Value>,
        values: Values,
    ) -> Result<Self, serde_json::Error> {
        let organization = Effective::merge([platform.clone(), values.organization.clone()])?;
        let projects = values
            .projects
            .iter()
            .map(|(project, own)| {
                let effective =
                    Effective::merge([platform.clone(), values.organization.clone(), own.clone()])?;
                Ok((*project, effective))
            })
            .collect::<Result<_, serde_json::Error>>()?;
        Ok(Self { org, values, organization, projects })
    }

    /// The organization.
    #[must_use]
    pub fn org(&self) -> OrgId {
        self.org
    }

    /// The organization's revision.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.values.revision
    }

    /// The values set in the organization, without those of the platform.
    #[must_use]
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// The effective values for the organization.
    #[must_use]
    pub fn organization(&self) -> &Effective {
        &self.organization
    }

    /// The effective values for a project.
    #[must_use]
    pub fn project(&self, project: ProjectId) -> &Effective {
        self.projects.get(&project).unwrap_or(&self.organization)
    }
}

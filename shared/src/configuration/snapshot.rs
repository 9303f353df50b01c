//! An organization's configuration at one revision, immutable: readers hold it as a whole.

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

/// Where a value comes from; a later one lies over an earlier one.
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
    /// The code.
    Builtin,
    /// The operator, for everybody.
    Default,
    /// The organization.
    Organization,
    /// The project.
    Project,
}

/// The values set in one organization, as stored.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// The revision they are of; 0 before the first.
    pub revision: i64,
    /// When that revision was made.
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
        type Row = (i64, OffsetDateTime, Option<ProjectId>, Option<String>, Option<Value>);
        let org = tx.org();
        // One statement, hence one snapshot of the database: a revision and the values of exactly that revision.
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT head.revision, head.changed_at, config.project_id, config.key, config.value
               FROM config_heads head LEFT JOIN config_values config ON config.org_id = head.org_id
              WHERE head.org_id = $1",
        )
        .bind(org)
        .fetch_all(tx.conn())
        .await?;
        let mut values = Self::default();
        for (revision, changed_at, project, key, value) in rows {
            (values.revision, values.changed_at) = (revision, Some(changed_at));
            let (Some(key), Some(value)) = (key, value) else {
                continue;
            };
            match project {
                None => values.organization.insert(key, value),
                Some(project) => values.projects.entry(project).or_default().insert(key, value),
            };
        }
        Ok(values)
    }
}

/// What holds in one organization at one revision, on top of one revision of the platform's.
#[derive(Clone, Debug)]
pub struct Snapshot {
    org: OrgId,
    values: Values,
    organization: Effective,
    projects: HashMap<ProjectId, Effective>,
}

impl Snapshot {
    /// Lays an organization's values over the platform's.
    ///
    /// # Errors
    /// When a value is not of its key's type.
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

    /// Whose it is.
    #[must_use]
    pub fn org(&self) -> OrgId {
        self.org
    }

    /// Which revision it is.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.values.revision
    }

    /// The values as stored, without what they lie upon.
    #[must_use]
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// What holds for the organization.
    #[must_use]
    pub fn organization(&self) -> &Effective {
        &self.organization
    }

    /// What holds for a project.
    #[must_use]
    pub fn project(&self, project: ProjectId) -> &Effective {
        self.projects.get(&project).unwrap_or(&self.organization)
    }
}

//! Every saga there is.

use atrium_shared::streams::Redis;

use super::{create_organization, delete_organization, step::Saga};
use crate::isolation::Isolation;

pub(super) fn all(redis: &Redis, isolation: &Isolation) -> Vec<Saga> {
    vec![create_organization::saga(isolation), delete_organization::saga(redis, isolation)]
}

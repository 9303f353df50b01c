//! Every saga there is, a line each.

use atrium_shared::streams::Redis;

use super::{create_organization, delete_organization, step::Saga};

pub(super) fn all(redis: &Redis) -> Vec<Saga> {
    vec![create_organization::saga(), delete_organization::saga(redis)]
}

//! Every saga there is, a line each.

use super::{create_organization, step::Saga};

pub(super) fn all() -> Vec<Saga> {
    vec![create_organization::saga()]
}

//! The config role: publishes each new revision as an event on the live stream, which every process reads.
//!
//! The event carries organization and revision, never a value, because processes read values behind the tenant wall. It
//! is added before the message is marked as consumed, so it may be added twice, and an older one after a newer one;
//! readers use the greatest.

use atrium_shared::{
    db::OrgTx,
    ids::OrgId,
    messages::{RevisionEntry, RevisionNotice},
    streams::Redis,
};

use crate::consumer::{HandleError, Handler, Message, Outcome};

pub(crate) struct Publisher {
    redis: Redis,
}

impl Publisher {
    pub(crate) fn new(redis: Redis) -> Self {
        Self { redis }
    }
}

impl Handler for Publisher {
    const CONSUMER: &'static str = "config";
    type Prepared = ();
    type Effect = ();

    async fn handle(&self, _tx: &mut OrgTx, message: &Message, (): ()) -> Result<Outcome<()>, HandleError> {
        let RevisionNotice { revision } = message.read()?;
        self.redis.announce(&RevisionEntry { org: message.org(), revision }).await?;
        Ok(Outcome::Done(()))
    }

    async fn committed(&self, _org: OrgId, (): ()) {}

    /// Does nothing, because the reconcile query of every process finds the revision.
    async fn give_up(&self, _tx: &mut OrgTx, _message: &Message, _reason: &str) -> Result<(), HandleError> {
        Ok(())
    }
}

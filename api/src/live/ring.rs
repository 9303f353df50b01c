//! The recent events of one chat shard, shared by all streams of this process that read it.
//!
//! Events stand in one bounded ring, indexed by project (a *topic*). A stream has no queue: it holds a cursor, the id of
//! the last event it was given, and reads what its topic holds beyond that. A stream that is too slow finds that
//! events of its topic were evicted beyond its cursor: it *fell off*, is told so, and goes on from now. It neither
//! makes memory grow nor slows anybody.
//!
//! The ring knows from which id on it is complete (its *floor*). A stream that resumes joins the ring in one step, under
//! one lock, if its position is not below that; otherwise it reads Redis first (see [`super::resume`]).
//!
//! A new *generation* begins when history was lost: cursors of an older one are told, and begin anew.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use atrium_shared::{
    ids::{OrgId, ProjectId, SessionId},
    streams::StreamId,
};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use schemars::JsonSchema;
use serde::Serialize;
use strum::{IntoStaticStr, VariantArray};

use super::{frame::Batch, open_streams::OpenStream, position::Position, slots::Slots};

/// How much a ring keeps.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most events.
    pub events: usize,
    /// The most bytes of framed events.
    pub bytes: usize,
}

impl Limits {
    /// Of a shard: at 400 events a second, ten seconds for a client to come back without a read from Redis.
    pub const SHARD: Self = Self { events: 4096, bytes: 2 * 1024 * 1024 };
}

/// Why a stream cannot go on from where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema, IntoStaticStr, VariantArray)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum ResetReason {
    /// The client read too slowly, and what it had not read is gone.
    Slow,
    /// The position is older than what is kept.
    TooOld,
    /// The stream's history was lost, or the position is not one of it.
    HistoryLost,
    /// This process may have missed events.
    Gap,
    /// The defaults of the platform have changed, which no revision of the organization tells.
    DefaultsChanged,
}

/// What an event is about.
pub type TopicKey = (OrgId, ProjectId);

/// An event, framed.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its id in the live stream.
    pub id: StreamId,
    /// Set when only this session is concerned: its end. Nobody else sees it, and its stream ends with it.
    pub closes: Option<SessionId>,
    /// The bytes on the wire.
    pub bytes: Bytes,
}

/// An event as it comes from the live stream.
#[derive(Clone, Debug)]
pub struct Published {
    /// The stream's epoch.
    pub epoch: Arc<str>,
    /// What it is about.
    pub topic: TopicKey,
    /// The event.
    pub frame: Frame,
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// Nothing beyond the cursor.
    Nothing,
    /// One or more events; more may be left.
    Events,
    /// The event that closes the reader's session, perhaps after others.
    Closed,
    /// The stream cannot go on from its cursor; the cursor has been set to where it can.
    Reset(ResetReason),
}

/// Whether a position can be joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// Yes; the cursor stands there now.
    Joined,
    /// It lies before what the ring holds.
    NotCovered,
    /// It lies beyond what the ring has seen, and nobody has verified that it exists.
    Ahead,
    /// The ring has seen nothing yet, so nobody knows.
    Unknown,
    /// It is a position in another history.
    OtherHistory,
}

/// The ring of one shard.
#[derive(Debug)]
pub struct Ring {
    limits: Limits,
    shard: Mutex<Shard>,
}

#[derive(Debug)]
struct Shard {
    epoch: Option<Arc<str>>,
    generation: u64,
    /// Why this generation began.
    reason: ResetReason,
    /// Every event after this id was put into the ring. None: no event yet in this generation.
    floor: Option<StreamId>,
    /// The last event put into the ring.
    head: StreamId,
    /// The last event evicted from it.
    evicted: StreamId,
    /// The topic of every event in the ring, the oldest first.
    order: VecDeque<Arc<Topic>>,
    bytes: usize,
    topics: HashMap<TopicKey, Arc<Topic>>,
}

/// One project's part of the ring. Locked after the shard, never before.
#[derive(Debug)]
struct Topic {
    key: TopicKey,
    recent: RwLock<Recent>,
    readers: Mutex<Slots<Arc<OpenStream>>>,
}

#[derive(Debug, Default)]
struct Recent {
    generation: u64,
    reason: Option<ResetReason>,
    /// The last event of this topic that was evicted.
    evicted: StreamId,
    frames: VecDeque<Frame>,
}

impl Recent {
    fn head(&self) -> StreamId {
        self.frames.back().map_or(self.evicted, |frame| frame.id)
    }
}

impl Topic {
    fn wake(&self) {
        for reader in self.readers.lock().iter() {
            reader.wake();
        }
    }

    fn is_unused(&self) -> bool {
        self.readers.lock().is_empty() && self.recent.read().frames.is_empty()
    }
}

impl Ring {
    /// An empty ring.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let shard = Shard {
            epoch: None,
            generation: 0,
            reason: ResetReason::Gap,
            floor: None,
            head: StreamId::default(),
            evicted: StreamId::default(),
            order: VecDeque::new(),
            bytes: 0,
            topics: HashMap::new(),
        };
        Self { limits, shard: Mutex::new(shard) }
    }

    /// Puts events into the ring, then wakes their readers, each once.
    pub fn publish(&self, events: impl IntoIterator<Item = Published>) {
        let mut touched: Vec<Arc<Topic>> = Vec::new();
        {
            let mut shard = self.shard.lock();
            for event in events {
                if let Some(topic) = shard.push(event, self.limits)
                    && !touched.iter().any(|known| Arc::ptr_eq(known, &topic))
                {
                    touched.push(topic);
                }
            }
        }
        for topic in touched {
            topic.wake();
        }
    }

    /// Events may have been missed: forgets everything, and tells every reader.
    pub fn reset(&self, reason: ResetReason) {
        self.shard.lock().reset(reason);
    }

    /// Adds a reader to a topic, with its cursor at now.
    #[must_use]
    pub fn subscribe(self: &Arc<Self>, key: TopicKey, reader: Arc<OpenStream>) -> Subscription {
        let mut shard = self.shard.lock();
        let topic = shard.topic(key);
        let slot = topic.readers.lock().insert(reader);
        let cursor = Cursor { generation: shard.generation, id: shard.head };
        drop(shard);
        Subscription { ring: Arc::clone(self), topic, slot, cursor }
    }
}

impl Shard {
    fn push(&mut self, event: Published, limits: Limits) -> Option<Arc<Topic>> {
        let id = event.frame.id;
        if self.epoch.as_ref() != Some(&event.epoch) {
            // The first epoch ever seen loses nothing, nor does one that follows a reset nobody read beyond.
            if self.epoch.is_some() && self.floor.is_some() {
                self.reset(ResetReason::HistoryLost);
            }
            self.epoch = Some(event.epoch);
        }
        if self.floor.is_none() {
            self.floor = Some(before(id));
        }
        if id <= self.head {
            return None;
        }
        self.head = id;
        self.bytes += event.frame.bytes.len();
        let topic = self.topic(event.topic);
        topic.recent.write().frames.push_back(event.frame);
        self.order.push_back(Arc::clone(&topic));
        while self.order.len() > limits.events || self.bytes > limits.bytes {
            self.evict();
        }
        Some(topic)
    }

    fn evict(&mut self) {
        let Some(topic) = self.order.pop_front() else {
            return;
        };
        let mut recent = topic.recent.write();
        if let Some(frame) = recent.frames.pop_front() {
            self.bytes -= frame.bytes.len();
            self.evicted = frame.id;
            recent.evicted = frame.id;
        }
        drop(recent);
        self.forget_unused(&topic);
    }

    fn forget_unused(&mut self, topic: &Topic) {
        if topic.is_unused() {
            self.topics.remove(&topic.key);
        }
    }

    fn topic(&mut self, key: TopicKey) -> Arc<Topic> {
        let (generation, reason, evicted) = (self.generation, self.reason, self.evicted);
        let topic = self.topics.entry(key).or_insert_with(|| {
            // What was evicted of this topic before it was forgotten is not known: no later than the shard's last.
            let recent = Recent { generation, reason: Some(reason), evicted, frames: VecDeque::new() };
            Arc::new(Topic { key, recent: RwLock::new(recent), readers: Mutex::default() })
        });
        Arc::clone(topic)
    }

    fn reset(&mut self, reason: ResetReason) {
        self.generation += 1;
        self.reason = reason;
        (self.floor, self.head, self.evicted) = (None, StreamId::default(), StreamId::default());
        self.order.clear();
        self.bytes = 0;
        self.topics.retain(|_, topic| {
            *topic.recent.write() = Recent {
                generation: self.generation,
                reason: Some(reason),
                evicted: StreamId::default(),
                frames: VecDeque::new(),
            };
            topic.wake();
            !topic.readers.lock().is_empty()
        });
    }
}

#[derive(Clone, Copy, Debug)]
struct Cursor {
    generation: u64,
    id: StreamId,
}

/// A stream's subscription to a topic of a ring. It ends when this is dropped.
#[derive(Debug)]
pub struct Subscription {
    ring: Arc<Ring>,
    topic: Arc<Topic>,
    slot: usize,
    cursor: Cursor,
}

impl Subscription {
    /// Gives the batch what the topic holds beyond the cursor, as far as it fits, and moves the cursor.
    pub fn read(&mut self, session: SessionId, batch: &mut Batch) -> Read {
        let recent = self.topic.recent.read();
        if recent.generation != self.cursor.generation {
            // What came after the loss is given: everything the topic still holds.
            self.cursor = Cursor { generation: recent.generation, id: recent.evicted };
            return Read::Reset(recent.reason.unwrap_or(ResetReason::Gap));
        }
        if recent.evicted > self.cursor.id {
            self.cursor.id = recent.head();
            return Read::Reset(ResetReason::Slow);
        }
        let begin = recent.frames.partition_point(|frame| frame.id <= self.cursor.id);
        let mut found = Read::Nothing;
        for frame in recent.frames.range(begin..) {
            if batch.is_full() {
                break;
            }
            self.cursor.id = frame.id;
            match frame.closes {
                Some(closed) if closed != session => continue,
                closes => {
                    batch.event(&frame.bytes);
                    found = Read::Events;
                    if closes.is_some() {
                        return Read::Closed;
                    }
                }
            }
        }
        found
    }

    /// Moves the cursor to a client's position, if the ring holds everything that comes after it. A client may come
    /// from a process that is ahead of this one, or may have made its position up, and would then wait forever:
    /// `verified` says that Redis has come as far.
    pub fn join(&mut self, position: &Position, verified: bool) -> Join {
        let shard = self.ring.shard.lock();
        let (Some(epoch), Some(floor)) = (&shard.epoch, shard.floor) else {
            return Join::Unknown;
        };
        if *epoch != position.epoch {
            return Join::OtherHistory;
        }
        if position.id < floor.max(self.topic.recent.read().evicted) {
            return Join::NotCovered;
        }
        if position.id > shard.head && !verified {
            return Join::Ahead;
        }
        self.cursor = Cursor { generation: shard.generation, id: position.id };
        Join::Joined
    }

    /// Moves the cursor to now.
    pub fn restart(&mut self) {
        let shard = self.ring.shard.lock();
        self.cursor = Cursor { generation: shard.generation, id: shard.head };
    }

    /// The cursor as a position, if the ring holds everything after it.
    #[must_use]
    pub fn cursor(&self) -> Option<Position> {
        let shard = self.ring.shard.lock();
        let floor = shard.floor?;
        if shard.generation != self.cursor.generation || self.cursor.id < floor {
            return None;
        }
        Some(Position { epoch: Arc::clone(shard.epoch.as_ref()?), id: self.cursor.id })
    }

    /// The position up to which this stream was given everything: the shard's last event, if nothing of this topic
    /// lies between the cursor and it. None when the ring has seen nothing yet. Of other projects it says no more than
    /// that one of an eighth of them all was active at that moment.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        let shard = self.ring.shard.lock();
        shard.floor?;
        let recent = self.topic.recent.read();
        if shard.generation != self.cursor.generation || recent.head() > self.cursor.id {
            return None;
        }
        // A client may come from a process that is ahead of this one.
        Some(Position { epoch: Arc::clone(shard.epoch.as_ref()?), id: shard.head.max(self.cursor.id) })
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut shard = self.ring.shard.lock();
        self.topic.readers.lock().remove(self.slot);
        // Another topic of the same name may have taken its place only if this one was unused, which it was not.
        shard.forget_unused(&self.topic);
    }
}

/// The greatest id below this one.
fn before(id: StreamId) -> StreamId {
    match (id.ms, id.seq) {
        (0, 0) => id,
        (ms, 0) => StreamId { ms: ms - 1, seq: u64::MAX },
        (ms, seq) => StreamId { ms, seq: seq - 1 },
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        sync::atomic::{AtomicBool, AtomicU64, Ordering},
        thread,
    };

    use atrium_shared::{ids::AuthSessionId, lifecycle::Shutdown};
    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

    use super::*;
    use crate::{
        http::caller::Credential,
        live::open_streams::{OpenStreams, Registration, StreamKind},
    };

    const SMALL: Limits = Limits { events: 8, bytes: 1 << 20 };

    fn reader() -> Registration {
        let credential = Credential {
            principal: uuid::Uuid::now_v7(),
            auth_session: Some(AuthSessionId::new()),
            expires_at: atrium_shared::clock::now() + time::Duration::minutes(15),
        };
        OpenStreams::new(Shutdown::new()).register(
            StreamKind::Chat,
            credential,
            (OrgId::new(), None),
            std::time::Instant::now(),
        )
    }

    fn key() -> TopicKey {
        (OrgId::new(), ProjectId::new())
    }

    fn id(ms: u64) -> StreamId {
        StreamId { ms, seq: 0 }
    }

    fn event(topic: TopicKey, ms: u64) -> Published {
        in_epoch("e1", topic, ms)
    }

    fn in_epoch(epoch: &str, topic: TopicKey, ms: u64) -> Published {
        let frame = Frame { id: id(ms), closes: None, bytes: format!("{ms};").into() };
        Published { epoch: epoch.into(), topic, frame }
    }

    fn closing(topic: TopicKey, ms: u64, session: SessionId) -> Published {
        let mut published = event(topic, ms);
        published.frame.closes = Some(session);
        published
    }

    fn at(epoch: &str, ms: u64) -> Position {
        Position { epoch: epoch.into(), id: id(ms) }
    }

    /// Reads until nothing is left: what was seen, and the first reset on the way.
    fn read_all(subscription: &mut Subscription, session: SessionId) -> (String, Option<ResetReason>) {
        let (mut seen, mut reset) = (String::new(), None);
        loop {
            let mut batch = Batch::default();
            let found = subscription.read(session, &mut batch);
            seen.push_str(std::str::from_utf8(&batch.into_bytes()).expect("the tests' events are text"));
            match found {
                Read::Nothing => return (seen, reset),
                Read::Events => {}
                Read::Closed => return (seen + "closed", reset),
                Read::Reset(reason) => {
                    assert_eq!(reset.replace(reason), None, "told once");
                }
            }
        }
    }

    fn read_some(subscription: &mut Subscription) -> (String, Option<ResetReason>) {
        read_all(subscription, SessionId::new())
    }

    #[test]
    fn a_reader_sees_its_topic_from_now_on() {
        let (ring, topic, other) = (Arc::new(Ring::new(SMALL)), key(), key());
        let stream = reader();
        ring.publish([event(topic, 1)]);
        let mut subscription = ring.subscribe(topic, Arc::clone(stream.stream()));
        ring.publish([event(topic, 2), event(other, 3), event(topic, 4)]);
        assert_eq!(read_some(&mut subscription), ("2;4;".to_owned(), None));
        assert_eq!(read_some(&mut subscription), (String::new(), None));
        ring.publish([event(topic, 4), event(topic, 3)]);
        assert_eq!(read_some(&mut subscription), (String::new(), None), "older ones are repetitions");
    }

    #[test]
    fn a_slow_reader_falls_off_and_goes_on_from_now() {
        let (ring, topic) = (Arc::new(Ring::new(SMALL)), key());
        let stream = reader();
        let mut subscription = ring.subscribe(topic, Arc::clone(stream.stream()));
        ring.publish((1..=9).map(|ms| event(topic, ms)));
        assert_eq!(read_some(&mut subscription), (String::new(), Some(ResetReason::Slow)));
        ring.publish([event(topic, 10)]);
        assert_eq!(read_some(&mut subscription), ("10;".to_owned(), None));
    }

    #[test]
    fn what_others_say_pushes_nobody_off() {
        let (ring, topic, other) = (Arc::new(Ring::new(SMALL)), key(), key());
        let stream = reader();
        let mut subscription = ring.subscribe(topic, Arc::clone(stream.stream()));
        ring.publish([event(topic, 1)]);
        assert_eq!(read_some(&mut subscription), ("1;".to_owned(), None));
        ring.publish((2..=100).map(|ms| event(other, ms)));
        ring.publish([event(topic, 101)]);
        assert_eq!(read_some(&mut subscription), ("101;".to_owned(), None));
    }

    #[test]
    fn memory_is_bounded_in_events_bytes_and_topics() {
        let ring = Arc::new(Ring::new(Limits { events: 1000, bytes: 100 }));
        for ms in 1..=500 {
            ring.publish([event(key(), ms)]);
        }
        let shard = ring.shard.lock();
        assert!(shard.bytes <= 100 && shard.order.len() <= 34 && shard.topics.len() == shard.order.len());
    }

    #[test]
    fn a_session_sees_its_own_end_and_no_other() {
        let (ring, topic) = (Arc::new(Ring::new(SMALL)), key());
        let stream = reader();
        let (mine, others) = (SessionId::new(), SessionId::new());
        let mut subscription = ring.subscribe(topic, Arc::clone(stream.stream()));
        ring.publish([event(topic, 1), closing(topic, 2, others), event(topic, 3), closing(topic, 4, mine)]);
        assert_eq!(read_all(&mut subscription, mine), ("1;3;4;closed".to_owned(), None));
    }

    #[test]
    fn a_position_is_joined_where_the_ring_is_complete() {
        let (ring, topic, other) = (Arc::new(Ring::new(SMALL)), key(), key());
        let stream = reader();
        let mut subscription = ring.subscribe(topic, Arc::clone(stream.stream()));
        assert_eq!(subscription.join(&at("e1", 5), false), Join::Unknown);
        assert_eq!(subscription.cursor(), None);
        ring.publish([event(topic, 5), event(topic, 6)]);
        // Something may have stood before the first event this process has seen.
        assert_eq!(subscription.join(&at("e1", 3), false), Join::NotCovered);
        assert_eq!(subscription.join(&at("e0", 5), false), Join::OtherHistory);
        assert_eq!(subscription.join(&at("e1", 5), false), Join::Joined);
        assert_eq!(read_some(&mut subscription), ("6;".to_owned(), None));
        // The client comes from a process that is ahead, or says so.
        assert_eq!(subscription.join(&at("e1", 8), false), Join::Ahead);
        assert_eq!(subscription.join(&at("e1", 8), true), Join::Joined);
        ring.publish([event(topic, 7), event(topic, 8), event(topic, 9)]);
        assert_eq!(read_some(&mut subscription), ("9;".to_owned(), None));
        // Only what was evicted of the topic itself matters.
        ring.publish((10..=17).map(|ms| event(other, ms)));
        assert_eq!(subscription.join(&at("e1", 8), false), Join::NotCovered);
        assert_eq!(subscription.join(&at("e1", 9), false), Join::Joined);
    }

    #[test]
    fn a_forgotten_topic_does_not_forget_what_was_evicted() {
        let (ring, topic, other) = (Arc::new(Ring::new(SMALL)), key(), key());
        ring.publish([event(topic, 1), event(topic, 2)]);
        ring.publish((3..=12).map(|ms| event(other, ms)));
        assert!(!ring.shard.lock().topics.contains_key(&topic));
        let stream = reader();
        let mut subscription = ring.subscribe(topic, Arc::clone(stream.stream()));
        assert_eq!(subscription.join(&at("e1", 1), false), Join::NotCovered);
        assert_eq!(subscription.join(&at("e1", 4), false), Join::Joined);
    }

    #[test]
    fn a_position_covers_everything_before_it() {
        let (ring, topic, other) = (Arc::new(Ring::new(SMALL)), key(), key());
        let stream = reader();
        let mut subscription = ring.subscribe(topic, Arc::clone(stream.stream()));
        assert_eq!(subscription.position(), None);
        ring.publish([event(other, 1), event(topic, 2)]);
        assert_eq!(subscription.position(), None, "2 was not given yet");
        assert_eq!(read_some(&mut subscription), ("2;".to_owned(), None));
        ring.publish([event(other, 3)]);
        assert_eq!(subscription.position(), Some(at("e1", 3)));
        let late = ring.subscribe(topic, Arc::clone(stream.stream()));
        assert_eq!(late.cursor(), Some(at("e1", 3)));
    }

    #[test]
    fn another_epoch_is_another_history() {
        let (ring, topic) = (Arc::new(Ring::new(SMALL)), key());
        let stream = reader();
        let mut subscription = ring.subscribe(topic, Arc::clone(stream.stream()));
        ring.publish([event(topic, 5)]);
        assert_eq!(read_some(&mut subscription), ("5;".to_owned(), None), "the first epoch is no loss");
        ring.publish([in_epoch("e2", topic, 3), in_epoch("e2", topic, 4)]);
        assert_eq!(read_some(&mut subscription), ("3;4;".to_owned(), Some(ResetReason::HistoryLost)));
        assert_eq!(subscription.join(&at("e1", 5), false), Join::OtherHistory);
    }

    #[test]
    fn a_gap_is_told_once_and_nothing_before_it_can_be_joined() {
        let (ring, topic) = (Arc::new(Ring::new(SMALL)), key());
        let stream = reader();
        let mut subscription = ring.subscribe(topic, Arc::clone(stream.stream()));
        ring.publish([event(topic, 1)]);
        ring.reset(ResetReason::Gap);
        ring.publish([in_epoch("e2", topic, 7)]);
        // The epoch that follows a reset nobody has read beyond is part of it.
        assert_eq!(read_some(&mut subscription), ("7;".to_owned(), Some(ResetReason::Gap)));
        assert_eq!(subscription.join(&at("e2", 5), false), Join::NotCovered);
    }

    #[test]
    fn who_leaves_is_forgotten() {
        let ring = Arc::new(Ring::new(SMALL));
        let stream = reader();
        for _ in 0..100 {
            drop(ring.subscribe(key(), Arc::clone(stream.stream())));
        }
        assert!(ring.shard.lock().topics.is_empty());
    }

    /// Many readers, some slow, some leaving and coming back with their last position, while several topics of one
    /// shard are written. Whoever was not told of a reset has seen every event of its topic once and in order.
    #[test]
    fn a_storm_has_no_gap_and_no_repetition() {
        const EVENTS: u64 = 20_000;
        const READERS: u64 = 24;
        let ring = Arc::new(Ring::new(Limits { events: 512, bytes: 1 << 20 }));
        let topics: Vec<TopicKey> = (0..5).map(|_| key()).collect();
        let (over, resets, resumes) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        // Which events are of which topic, decided beforehand.
        let mut random = StdRng::seed_from_u64(7);
        let plan: Vec<TopicKey> = (0..EVENTS).map(|_| topics[random.random_range(0..topics.len())]).collect();
        let mut of_topic: BTreeMap<TopicKey, Vec<u64>> = BTreeMap::new();
        for (ms, topic) in (1..).zip(&plan) {
            of_topic.entry(*topic).or_default().push(ms);
        }

        thread::scope(|scope| {
            for number in 0..READERS {
                let (ring, topics, of_topic) = (&ring, &topics, &of_topic);
                let (over, resets, resumes) = (&over, &resets, &resumes);
                scope.spawn(move || {
                    let mut random = StdRng::seed_from_u64(100 + number);
                    let topic = topics[random.random_range(0..topics.len())];
                    let stream = reader();
                    let mut subscription = ring.subscribe(topic, Arc::clone(stream.stream()));
                    // The last event seen; none before the first, and after a reset.
                    let mut last: Option<u64> = None;
                    let mut done = false;
                    while !done {
                        // Read once more after the end, or the last events would go unchecked.
                        done = over.load(Ordering::Acquire);
                        let mut batch = Batch::default();
                        let found = subscription.read(SessionId::new(), &mut batch);
                        for ms in
                            std::str::from_utf8(&batch.into_bytes()).expect("text").split_terminator(';')
                        {
                            let ms: u64 = ms.parse().expect("a number");
                            let expected = match last {
                                None => ms,
                                Some(last) => {
                                    let all = &of_topic[&topic];
                                    all[all.partition_point(|other| *other <= last)]
                                }
                            };
                            assert_eq!(ms, expected, "after {last:?}");
                            last = Some(ms);
                        }
                        match found {
                            Read::Reset(_) => {
                                resets.fetch_add(1, Ordering::Relaxed);
                                last = None;
                            }
                            Read::Events => done = false,
                            _ if random.random_ratio(1, 50) => {
                                // Leaves, and comes back with what it has seen.
                                let position = subscription.position();
                                subscription = ring.subscribe(topic, Arc::clone(stream.stream()));
                                let back = position.or_else(|| last.map(|last| at("e1", last)));
                                last = match back.map(|position| subscription.join(&position, false)) {
                                    Some(Join::Joined) => {
                                        resumes.fetch_add(1, Ordering::Relaxed);
                                        last
                                    }
                                    _ => None,
                                };
                            }
                            _ if random.random_ratio(1, 200) => {
                                thread::sleep(std::time::Duration::from_millis(3));
                            }
                            _ => thread::yield_now(),
                        }
                    }
                    if let Some(last) = last {
                        assert_eq!(Some(&last), of_topic[&topic].last(), "the end was not seen");
                    }
                });
            }
            let mut ms = 0;
            while ms < EVENTS {
                let burst = random.random_range(1..40).min(EVENTS - ms);
                ring.publish((ms + 1..=ms + burst).map(|ms| event(plan[ms as usize - 1], ms)));
                ms += burst;
                if random.random_ratio(1, 4) {
                    thread::sleep(std::time::Duration::from_micros(300));
                }
            }
            over.store(true, Ordering::Release);
        });
        assert!(resets.into_inner() > 0, "nobody fell off: the storm is too calm");
        assert!(resumes.into_inner() > 100, "too few came back");
    }
}

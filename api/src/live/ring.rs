//! The recent events of one chat shard, shared by all streams of this process that read it.
//!
//! Events are kept in one bounded ring, indexed by project (a *topic*). A stream has no queue: it has a cursor, the id
//! of the last event that it read, and reads the later events of its topic. If a stream is too slow, events of its
//! topic after its cursor are evicted. Its next read then returns a reset and moves the cursor to the newest event. So
//! a slow stream neither uses more memory nor delays other streams.
//!
//! The ring contains all events after an id, its *floor*, except those that it has evicted. A stream that resumes joins
//! the ring in one step, under one lock, if the ring has every event after its position; otherwise it reads Redis first
//! (see [`super::resume`]).
//!
//! A new *generation* starts when history was lost. The next read with a cursor of an older generation returns a reset
//! and moves the cursor to the start of the new one.

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

/// The capacity of a ring.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum number of events.
    pub events: usize,
    /// Maximum number of bytes of all framed events.
    pub bytes: usize,
}

impl Limits {
    /// For a shard: at 400 events a second, a client has ten seconds to reconnect without a read from Redis.
    pub const SHARD: Self = Self { events: 4096, bytes: 2 * 1024 * 1024 };
}

/// Why a stream cannot continue from its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema, IntoStaticStr, VariantArray)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum ResetReason {
    /// The client read too slowly, and events that it had not read were evicted.
    Slow,
    /// The position is older than the oldest event that is kept.
    TooOld,
    /// The stream's history was lost, or the position does not belong to it.
    HistoryLost,
    /// This process may have missed events.
    Gap,
    /// The platform's default values have changed, which does not change the organization's revision.
    DefaultsChanged,
}

/// The topic of an event: a project of an organization.
pub type TopicKey = (OrgId, ProjectId);

/// A framed event.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The event's id in the live stream.
    pub id: StreamId,
    /// Set if the event closes this session. Only the session's own stream sends it, and then ends.
    pub closes: Option<SessionId>,
    /// The bytes to send.
    pub bytes: Bytes,
}

/// An event read from the live stream.
#[derive(Clone, Debug)]
pub struct Published {
    /// The stream's epoch.
    pub epoch: Arc<str>,
    /// The event's topic.
    pub topic: TopicKey,
    /// The event.
    pub frame: Frame,
}

/// The result of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// There is no event after the cursor.
    Nothing,
    /// One or more events; there may be more.
    Events,
    /// The event that closes the reader's session, possibly after other events.
    Closed,
    /// The stream cannot continue from its cursor, so the cursor was moved to a position from which it can.
    Reset(ResetReason),
}

/// The result of joining the ring at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// The cursor was moved to the position.
    Joined,
    /// The ring lacks events after the position.
    NotCovered,
    /// The position is after the newest event of the ring, and it is not verified that it exists.
    Ahead,
    /// The ring has received no events yet, so nothing is known about the position.
    Unknown,
    /// The position has another epoch.
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
    /// Why this generation started.
    reason: ResetReason,
    /// Every event after this id was put into the ring. `None` if this generation has no events yet.
    floor: Option<StreamId>,
    /// The last event put into the ring.
    head: StreamId,
    /// The last event evicted from the ring.
    evicted: StreamId,
    /// The topics of the events in the ring, oldest event first.
    order: VecDeque<Arc<Topic>>,
    bytes: usize,
    topics: HashMap<TopicKey, Arc<Topic>>,
}

/// The events of one project in the ring. Its locks are taken after the shard's lock, never before.
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

    /// Puts events into the ring, then wakes the readers of each topic once.
    pub fn publish(&self, events: impl IntoIterator<Item = Published>) {
        let mut touched: Vec<Arc<Topic>> = Vec::new();
        {
            let mut shard = self.shard.lock();
            for event in events {
                if let Some(topic) = shard.push(event, self.limits)
                    && !touched.iter().any(|other| Arc::ptr_eq(other, &topic))
                {
                    touched.push(topic);
                }
            }
        }
        for topic in touched {
            topic.wake();
        }
    }

    /// Removes all events and wakes every reader, because events may have been missed.
    pub fn reset(&self, reason: ResetReason) {
        self.shard.lock().reset(reason);
    }

    /// Adds a reader to a topic, with its cursor at the newest event of the shard.
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
            // No history is lost with the first epoch, nor with one that directly follows a reset.
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
        self.remove_if_unused(&topic);
    }

    fn remove_if_unused(&mut self, topic: &Topic) {
        if topic.is_unused() {
            self.topics.remove(&topic.key);
        }
    }

    fn topic(&mut self, key: TopicKey) -> Arc<Topic> {
        let (generation, reason, evicted) = (self.generation, self.reason, self.evicted);
        let topic = self.topics.entry(key).or_insert_with(|| {
            // If the topic was removed before, its last evicted event is not known. It is no later than the shard's.
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
    /// Adds the topic's events after the cursor to the batch, as far as they fit, and moves the cursor.
    pub fn read(&mut self, session: SessionId, batch: &mut Batch) -> Read {
        let recent = self.topic.recent.read();
        if recent.generation != self.cursor.generation {
            // The stream continues with all events that the topic has received since the loss and still holds.
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

    /// Moves the cursor to a client's position, if the ring has every event after it. A position after the newest event
    /// may come from a process that has read more than this one, or it may be forged, and its client would wait
    /// forever. `verified` means that the position was found to exist in Redis.
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

    /// Moves the cursor to the newest event of the shard.
    pub fn restart(&mut self) {
        let shard = self.ring.shard.lock();
        self.cursor = Cursor { generation: shard.generation, id: shard.head };
    }

    /// The cursor as a position, if the ring has every event of the shard after it.
    #[must_use]
    pub fn cursor(&self) -> Option<Position> {
        let shard = self.ring.shard.lock();
        let floor = shard.floor?;
        if shard.generation != self.cursor.generation || self.cursor.id < floor {
            return None;
        }
        Some(Position { epoch: Arc::clone(shard.epoch.as_ref()?), id: self.cursor.id })
    }

    /// The position up to which this stream has read everything: the shard's newest event, if no event of this topic is
    /// between it and the cursor. `None` if there is one, or if the ring has received no events yet. The position
    /// reveals about other projects only that one of those in the shard, an eighth of all, was active at that moment.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        let shard = self.ring.shard.lock();
        shard.floor?;
        let recent = self.topic.recent.read();
        if shard.generation != self.cursor.generation || recent.head() > self.cursor.id {
            return None;
        }
        // The cursor of a client that was connected to another process may be after this ring's newest event.
        Some(Position { epoch: Arc::clone(shard.epoch.as_ref()?), id: shard.head.max(self.cursor.id) })
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut shard = self.ring.shard.lock();
        self.topic.readers.lock().remove(self.slot);
        // The shard still maps the key to this topic, because a topic with a reader is never replaced.
        shard.remove_if_unused(&self.topic);
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
            None,
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

    /// Reads all events; returns them and the reset that occurred, if any.
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
                    assert_eq!(reset.replace(reason), None, "reported once");
                }
            }
        }
    }

    fn read_some(subscription: &mut Subscription) -> (String, Option<ResetReason>) {
        read_all(subscription, SessionId::new())
    }

    #[test]
    fn a_reader_receives_only_later_events_of_its_topic() {
        let (ring, topic, other) = (Arc::new(Ring::new(SMALL)), key(), key());
        let stream = reader();
        ring.publish([event(topic, 1)]);
        let mut subscription = ring.subscribe(topic, Arc::clone(stream.stream()));
        ring.publish([event(topic, 2), event(other, 3), event(topic, 4)]);
        assert_eq!(read_some(&mut subscription), ("2;4;".to_owned(), None));
        assert_eq!(read_some(&mut subscription), (String::new(), None));
        ring.publish([event(topic, 4), event(topic, 3)]);
        assert_eq!(
            read_some(&mut subscription),
            (String::new(), None),
            "events that are not newer are ignored"
        );
    }

    #[test]
    fn a_slow_reader_gets_a_reset_and_continues_with_new_events() {
        let (ring, topic) = (Arc::new(Ring::new(SMALL)), key());
        let stream = reader();
        let mut subscription = ring.subscribe(topic, Arc::clone(stream.stream()));
        ring.publish((1..=9).map(|ms| event(topic, ms)));
        assert_eq!(read_some(&mut subscription), (String::new(), Some(ResetReason::Slow)));
        ring.publish([event(topic, 10)]);
        assert_eq!(read_some(&mut subscription), ("10;".to_owned(), None));
    }

    #[test]
    fn events_of_other_topics_do_not_reset_a_reader() {
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
    fn a_session_receives_only_its_own_end() {
        let (ring, topic) = (Arc::new(Ring::new(SMALL)), key());
        let stream = reader();
        let (mine, others) = (SessionId::new(), SessionId::new());
        let mut subscription = ring.subscribe(topic, Arc::clone(stream.stream()));
        ring.publish([event(topic, 1), closing(topic, 2, others), event(topic, 3), closing(topic, 4, mine)]);
        assert_eq!(read_all(&mut subscription, mine), ("1;3;4;closed".to_owned(), None));
    }

    #[test]
    fn a_position_is_joined_if_the_ring_has_all_later_events() {
        let (ring, topic, other) = (Arc::new(Ring::new(SMALL)), key(), key());
        let stream = reader();
        let mut subscription = ring.subscribe(topic, Arc::clone(stream.stream()));
        assert_eq!(subscription.join(&at("e1", 5), false), Join::Unknown);
        assert_eq!(subscription.cursor(), None);
        ring.publish([event(topic, 5), event(topic, 6)]);
        // There may be events before the first one that this process has read.
        assert_eq!(subscription.join(&at("e1", 3), false), Join::NotCovered);
        assert_eq!(subscription.join(&at("e0", 5), false), Join::OtherHistory);
        assert_eq!(subscription.join(&at("e1", 5), false), Join::Joined);
        assert_eq!(read_some(&mut subscription), ("6;".to_owned(), None));
        // The client was connected to a process that has read more, or its position is forged.
        assert_eq!(subscription.join(&at("e1", 8), false), Join::Ahead);
        assert_eq!(subscription.join(&at("e1", 8), true), Join::Joined);
        ring.publish([event(topic, 7), event(topic, 8), event(topic, 9)]);
        assert_eq!(read_some(&mut subscription), ("9;".to_owned(), None));
        // Only events of the topic itself matter when they are evicted.
        ring.publish((10..=17).map(|ms| event(other, ms)));
        assert_eq!(subscription.join(&at("e1", 8), false), Join::NotCovered);
        assert_eq!(subscription.join(&at("e1", 9), false), Join::Joined);
    }

    #[test]
    fn evictions_of_a_removed_topic_still_count() {
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
    fn a_position_requires_all_earlier_events_to_be_read() {
        let (ring, topic, other) = (Arc::new(Ring::new(SMALL)), key(), key());
        let stream = reader();
        let mut subscription = ring.subscribe(topic, Arc::clone(stream.stream()));
        assert_eq!(subscription.position(), None);
        ring.publish([event(other, 1), event(topic, 2)]);
        assert_eq!(subscription.position(), None, "2 was not read yet");
        assert_eq!(read_some(&mut subscription), ("2;".to_owned(), None));
        ring.publish([event(other, 3)]);
        assert_eq!(subscription.position(), Some(at("e1", 3)));
        let late = ring.subscribe(topic, Arc::clone(stream.stream()));
        assert_eq!(late.cursor(), Some(at("e1", 3)));
    }

    #[test]
    fn a_new_epoch_resets_readers() {
        let (ring, topic) = (Arc::new(Ring::new(SMALL)), key());
        let stream = reader();
        let mut subscription = ring.subscribe(topic, Arc::clone(stream.stream()));
        ring.publish([event(topic, 5)]);
        assert_eq!(read_some(&mut subscription), ("5;".to_owned(), None), "the first epoch loses no history");
        ring.publish([in_epoch("e2", topic, 3), in_epoch("e2", topic, 4)]);
        assert_eq!(read_some(&mut subscription), ("3;4;".to_owned(), Some(ResetReason::HistoryLost)));
        assert_eq!(subscription.join(&at("e1", 5), false), Join::OtherHistory);
    }

    #[test]
    fn a_gap_is_reported_once_and_earlier_positions_are_not_joined() {
        let (ring, topic) = (Arc::new(Ring::new(SMALL)), key());
        let stream = reader();
        let mut subscription = ring.subscribe(topic, Arc::clone(stream.stream()));
        ring.publish([event(topic, 1)]);
        ring.reset(ResetReason::Gap);
        ring.publish([in_epoch("e2", topic, 7)]);
        // A new epoch that directly follows a reset is part of the same loss.
        assert_eq!(read_some(&mut subscription), ("7;".to_owned(), Some(ResetReason::Gap)));
        assert_eq!(subscription.join(&at("e2", 5), false), Join::NotCovered);
    }

    #[test]
    fn unused_topics_are_removed() {
        let ring = Arc::new(Ring::new(SMALL));
        let stream = reader();
        for _ in 0..100 {
            drop(ring.subscribe(key(), Arc::clone(stream.stream())));
        }
        assert!(ring.shard.lock().topics.is_empty());
    }

    /// Many readers, some slow, some reconnecting with their last position, while several topics of one shard are
    /// written. A reader without a reset receives every event of its topic once and in order.
    #[test]
    fn concurrent_readers_receive_events_once_and_in_order() {
        const EVENTS: u64 = 20_000;
        const READERS: u64 = 24;
        let ring = Arc::new(Ring::new(Limits { events: 512, bytes: 1 << 20 }));
        let topics: Vec<TopicKey> = (0..5).map(|_| key()).collect();
        let (finished, resets, resumes) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        // The topic of each event is chosen before the threads start.
        let mut random = StdRng::seed_from_u64(7);
        let plan: Vec<TopicKey> = (0..EVENTS).map(|_| topics[random.random_range(0..topics.len())]).collect();
        let mut of_topic: BTreeMap<TopicKey, Vec<u64>> = BTreeMap::new();
        for (ms, topic) in (1..).zip(&plan) {
            of_topic.entry(*topic).or_default().push(ms);
        }

        thread::scope(|scope| {
            for number in 0..READERS {
                let (ring, topics, of_topic) = (&ring, &topics, &of_topic);
                let (finished, resets, resumes) = (&finished, &resets, &resumes);
                scope.spawn(move || {
                    let mut random = StdRng::seed_from_u64(100 + number);
                    let topic = topics[random.random_range(0..topics.len())];
                    let stream = reader();
                    let mut subscription = ring.subscribe(topic, Arc::clone(stream.stream()));
                    // The last event received; `None` before the first and after a reset.
                    let mut last: Option<u64> = None;
                    let mut done = false;
                    while !done {
                        // Read once more after the last publication, so that the last events are checked.
                        done = finished.load(Ordering::Acquire);
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
                                // Reconnects with its last position.
                                let position = subscription.position();
                                subscription = ring.subscribe(topic, Arc::clone(stream.stream()));
                                let resume_from = position.or_else(|| last.map(|last| at("e1", last)));
                                last = match resume_from.map(|position| subscription.join(&position, false)) {
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
                        assert_eq!(Some(&last), of_topic[&topic].last(), "the last event was not received");
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
            finished.store(true, Ordering::Release);
        });
        assert!(resets.into_inner() > 0, "no reader was too slow");
        assert!(resumes.into_inner() > 100, "too few readers resumed");
    }
}

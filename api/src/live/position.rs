//! Where a stream stands in a shard's live stream, as `Last-Event-ID` says it: `<epoch>-<milliseconds>-<sequence>`.
//!
//! The epoch changes when the live stream's history is lost, so ids of before and after cannot be taken for each other.

use std::{fmt, str::FromStr, sync::Arc};

use atrium_shared::streams::StreamId;

/// Longer than any epoch of ours; a longer one is refused unread.
const MAX_EPOCH: usize = 64;

/// A position in a shard's live stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Which history it is a position of.
    pub epoch: Arc<str>,
    /// The last event seen.
    pub id: StreamId,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.id)
    }
}

/// The text is no position.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id of this stream: <epoch>-<milliseconds>-<sequence>")]
pub struct PositionError;

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let (epoch, id) = text.split_once('-').ok_or(PositionError)?;
        if !(1..=MAX_EPOCH).contains(&epoch.len()) || !epoch.bytes().all(|byte| byte.is_ascii_alphanumeric())
        {
            return Err(PositionError);
        }
        Ok(Self { epoch: epoch.into(), id: id.parse().map_err(|_| PositionError)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_survives_its_text_form() {
        let text = "7f3a91c2-1795446043800-3";
        let position: Position = text.parse().expect("a position");
        assert_eq!((&*position.epoch, position.id), ("7f3a91c2", StreamId { ms: 1_795_446_043_800, seq: 3 }));
        assert_eq!(position.to_string(), text);
    }

    #[test]
    fn what_was_not_made_here_is_refused() {
        let long = format!("{}-1-0", "a".repeat(MAX_EPOCH + 1));
        for wrong in [
            "",
            "-",
            "--",
            "1-0",
            "a-1",
            "a-1-",
            "a--0",
            "-1-0",
            "a-1-0-0",
            "a-+1-0",
            "a-1-0 ",
            "a b-1-0",
            "a\n-1-0",
            "a-99999999999999999999-0",
            "a-0x1-0",
            "é-1-0",
            "*-1-0",
            "a-1-*",
            &long,
        ] {
            assert_eq!(wrong.parse::<Position>(), Err(PositionError), "{wrong:?}");
        }
    }
}

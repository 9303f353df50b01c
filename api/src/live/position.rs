//! The position of a stream in a shard's live stream, as `Last-Event-ID` has it: `<epoch>-<milliseconds>-<sequence>`.
//!
//! The epoch changes when the live stream's history is lost, so that ids from before and after cannot be confused.

use std::{fmt, str::FromStr, sync::Arc};

use atrium_shared::streams::StreamId;

/// Longer than any epoch that is generated; a longer one is rejected without parsing.
const MAX_EPOCH: usize = 64;

/// A position in a shard's live stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The epoch of the live stream.
    pub epoch: Arc<str>,
    /// The id of the last event that was received.
    pub id: StreamId,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.id)
    }
}

/// The text is not a position.
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
    fn a_position_is_formatted_and_parsed_without_loss() {
        let text = "7f3a91c2-1795446043800-3";
        let position: Position = text.parse().expect("a position");
        assert_eq!((&*position.epoch, position.id), ("7f3a91c2", StreamId { ms: 1_795_446_043_800, seq: 3 }));
        assert_eq!(position.to_string(), text);
    }

    #[test]
    fn malformed_positions_are_rejected() {
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

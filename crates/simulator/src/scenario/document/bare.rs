//! `[bare]`.

use super::super::{BareShape, ScenarioError};
use super::values::{Text, Time, time};
use crate::bare::STAMPED_EVENT_BYTES_MIN;
use serde::Deserialize;
use tidegate_base::ByteSize;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct BareTable {
    json_size: Option<Text<ByteSize>>,
    events: Option<usize>,
    event_size: Option<Text<ByteSize>>,
    interval: Option<Time>,
    writes: Writes,
    stamp: bool,
}

/// What leaves the bare target in one write where a stream has no pauses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Writes {
    /// The whole of it.
    #[default]
    Stream,
    /// One event, as a model's server sends them.
    Event,
}

impl BareTable {
    pub(super) fn build(self) -> Result<BareShape, ScenarioError> {
        let shape = BareShape::default();
        let shape = BareShape {
            json_bytes: self.json_size.map_or(shape.json_bytes, |size| size.0.as_usize()),
            events: self.events.unwrap_or(shape.events),
            event_bytes: self.event_size.map_or(shape.event_bytes, |size| size.0.as_usize()),
            interval: time(self.interval, shape.interval),
            event_writes: self.writes == Writes::Event,
            stamp: self.stamp,
        };
        if shape.stamp && shape.event_bytes < STAMPED_EVENT_BYTES_MIN {
            let error = format!("[bare] stamp: needs an event_size of at least {STAMPED_EVENT_BYTES_MIN} B");
            return Err(ScenarioError(error));
        }
        Ok(shape)
    }
}

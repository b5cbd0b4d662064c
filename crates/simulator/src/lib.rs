//! The Claude API as a pure model: replies, a strict validator, quotas and production's faults, all
//! from a seed.
//!
//! | part | what it knows |
//! |---|---|
//! | `simulator`, `door`, `answer` | the machine: a request and the time in, a plan out |
//! | `validate`, `catalog` | what the API refuses, in its own words; the models |
//! | `reply`, `events`, `tokens` | what the model says, as events and as one document; what it costs |
//! | `continuation` | requests to go on with an answer that broke off, and how well the model does |
//! | `callers`, `quota` | organisations, their limits, the rate-limit headers, what is spent |
//! | `cache` | the prompt cache: what of a prompt was sent before |
//! | `fault`, `playback`, `directive`, `pace` | what goes wrong and when; the steps on the wire |
//! | `odd` | answers of endpoints that are not the API |
//! | `scenario` | all of that as a TOML document |
//! | `stored` | files, skills, batches |
//! | `truth`, `series` | what really happened |
//! | `bare` | prebuilt bytes for load tests |
//!
//! Nothing here is asynchronous, reads a clock or a file, or draws randomness that is not seeded.
//! The API's JSON and SSE are written here from its documentation and not with the wire room's
//! types: a judge who shares the accused's misreadings finds nothing.

mod answer;
mod bare;
mod cache;
mod callers;
mod catalog;
mod continuation;
mod directive;
mod door;
mod envelope;
mod events;
mod fault;
mod listing;
mod odd;
mod pace;
mod playback;
mod quota;
mod reply;
mod scenario;
mod series;
mod signature;
mod simulator;
mod stored;
mod tokens;
mod truth;
mod validate;

pub use bare::{Bare, STAMP_BYTES};
pub use cache::CacheRules;
pub use continuation::{Continuation, ContinuationRules, GoOn};
pub use fault::{Cut, Fault, FaultError, Place};
pub use odd::Odd;
pub use pace::{Pace, Range};
pub use playback::{Action, Playback, Progress, Step};
pub use quota::{
    CancelCharge, Change, Consumer, Estimate, KeyOutage, KeyTrouble, Limits, OutputCharge, OutputExhausted, Oversize,
    PartialLimits, QuotaRules, RampRule, Sampled, SpendLimit, SpendLimitKind, Tier, Whom, WorkspaceHeaders,
};
pub use reply::{Block, Reply};
pub use scenario::{BareShape, ListedKey, NAMED, Organisation, Rule, Scenario, ScenarioError, Workspace};
pub use series::Second;
pub use simulator::{BODY_BYTES_MAX, Exchange, Head, Opening, RequestFacts, Simulator, Upgrade, body_bytes_max};
pub use truth::{Ending, Record, Truth, Usage};

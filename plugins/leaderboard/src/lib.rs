//! A leaderboard: the best score of each player, and of the players the best ones.
//!
//! # Format
//! ```json
//! {"top":3,"scores":{"ann":90,"bob":120}}
//! ```
//! `scores` has at most `top` players, of which the worst goes when a better one comes. Equal scores rank by name.
//!
//! # Merging
//! Of each player the larger score is kept, of two values of `top` the smaller one, and then the best `top` players. A
//! smaller `top` cannot be raised again: what it has dropped may be missing. A player who is dropped has `top` better
//! ones above, whose scores never fall, so dropping early and dropping late give the same (`self-causal`).
//!
//! A score cannot be taken back: the player that it has pushed out is gone. Delete the key and submit anew.
//!
//! # Operations
//! `{"player":"ann","score":90}`, and for the first one of a key also `"top":10` (100 if it is missing). A score below
//! the player's best, or below the worst of a full board, changes nothing. Questions: `"board"` or an empty one (all
//! players, the best first), `{"best":3}`, `{"rank":"ann"}` (from 1; `null` for a player who is not on the board).
//!
//! # Limits
//! `top` is 1 to 1 000. Scores are whole numbers from -2^53 to 2^53.

#![cfg_attr(not(target_arch = "wasm32"), forbid(unsafe_code))]

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use rejoin_guest::json::{self as strict, from_slice};
use rejoin_guest::laws::Rng;
use rejoin_guest::{Describer, Dot, Fault, Merger, Metadata, Operator, Presenter, Sampler, Sibling, Validator};

/// The most players of a board.
const MAX_TOP: usize = 1_000;
/// The players of a board whose first operation gives no number.
const DEFAULT_TOP: usize = 100;

/// The best players with their best scores.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Board {
    top: usize,
    scores: BTreeMap<String, i64>,
}

impl Board {
    /// An empty board of so many players, 1 to 1 000.
    #[must_use]
    pub fn new(top: usize) -> Self {
        Self { top: top.clamp(1, MAX_TOP), scores: BTreeMap::new() }
    }

    /// Reads a board.
    ///
    /// # Errors
    /// [`strict::Error`] if the bytes are not strict JSON of the documented form, or have more players than `top`.
    pub fn parse(json: &[u8]) -> Result<Self, strict::Error> {
        let board: Self = from_slice(json)?;
        if board.top == 0 || board.top > MAX_TOP || board.scores.len() > board.top {
            return Err(strict::Error::custom("`top` is 1 to 1000, and no board has more players"));
        }
        Ok(board)
    }

    /// The board as JSON. Equal boards give equal bytes.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("maps with text keys and integers are always JSON")
    }

    /// The players and scores, the best first.
    #[must_use]
    pub fn ranking(&self) -> Vec<(&str, i64)> {
        let mut players: Vec<(&str, i64)> = self.scores.iter().map(|(name, score)| (name.as_str(), *score)).collect();
        players.sort_by_key(|(name, score)| (Reverse(*score), *name));
        players
    }

    /// Counts a player's score if it is the player's best, and keeps the best players.
    pub fn submit(&mut self, player: &str, score: i64) {
        self.join(Self { top: self.top, scores: BTreeMap::from([(player.to_owned(), score)]) });
    }

    /// Joins another board.
    pub fn join(&mut self, other: Self) {
        for (player, theirs) in other.scores {
            let ours = self.scores.entry(player).or_insert(theirs);
            *ours = theirs.max(*ours);
        }
        self.top = self.top.min(other.top);
        if self.scores.len() > self.top {
            let kept = self.ranking().into_iter().take(self.top).map(|(name, score)| (name.to_owned(), score));
            self.scores = kept.collect();
        }
    }
}

/// A score of a player.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Operation {
    player: String,
    score: i64,
    top: Option<usize>,
}

/// A question to a board.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Question {
    Board,
    Best(usize),
    Rank(String),
}

/// The merge plugin for [`Board`] values.
pub struct Plugin;

rejoin_guest::export!(Plugin: Merger, Validator, Operator, Presenter, Sampler, Describer);

impl Merger for Plugin {
    fn merge(_key: &[u8], siblings: &[Sibling]) -> Result<Vec<u8>, Fault> {
        let mut merged = Board::new(MAX_TOP);
        for sibling in siblings {
            merged.join(Board::parse(&sibling.value)?);
        }
        Ok(merged.to_json())
    }
}

impl Validator for Plugin {
    fn validate(_key: &[u8], value: &[u8]) -> Result<(), Fault> {
        Ok(Board::parse(value).map(drop)?)
    }
}

impl Operator for Plugin {
    fn apply(_key: &[u8], state: Option<&[u8]>, operation: &[u8], _dot: Dot) -> Result<Vec<u8>, Fault> {
        let Operation { player, score, top } = from_slice(operation)?;
        if top.is_some_and(|top| top == 0 || top > MAX_TOP) {
            return Err(Fault::Malformed);
        }
        let mut board = state.map_or_else(|| Ok(Board::new(top.unwrap_or(DEFAULT_TOP))), Board::parse)?;
        board.submit(&player, score);
        Ok(board.to_json())
    }

    fn query(state: &[u8], question: &[u8]) -> Result<Vec<u8>, Fault> {
        let board = Board::parse(state)?;
        let question = if question.is_empty() { Question::Board } else { from_slice(question)? };
        let answer = match question {
            Question::Board => best(&board, MAX_TOP),
            Question::Best(count) => best(&board, count),
            Question::Rank(player) => {
                json!(board.ranking().iter().position(|(name, _)| *name == player).map(|place| place + 1))
            }
        };
        Ok(answer.to_string().into_bytes())
    }
}

fn best(board: &Board, count: usize) -> Value {
    let shown = |(player, score)| json!({ "player": player, "score": score });
    board.ranking().into_iter().take(count).map(shown).collect()
}

impl Presenter for Plugin {
    fn show(value: &[u8]) -> Vec<u8> {
        let shown = Board::parse(value).map(|board| best(&board, MAX_TOP));
        shown.unwrap_or_else(|why| json!({ "error": why.to_string() })).to_string().into_bytes()
    }
}

impl Describer for Plugin {
    fn describe() -> Metadata {
        Metadata { name: "leaderboard", version: env!("CARGO_PKG_VERSION"), schema: 1, self_causal: true }
    }
}

impl Sampler for Plugin {
    /// Draws from few players and scores, and boards of few sizes, so that scores tie and players are pushed out.
    /// Larger boards have more players.
    fn sample(seed: u64, size: u32) -> Vec<u8> {
        let mut rng = Rng::new(seed);
        let players = (size as usize).min(MAX_TOP);
        let mut board = Board::new(players + 1 + usize::from(rng.one_in(2)));
        for _ in 0..players {
            let player = format!("player {}", rng.below(3 + u64::from(size)));
            board.submit(&player, i64::try_from(rng.below(5)).unwrap_or(0) - 1);
        }
        board.to_json()
    }
}

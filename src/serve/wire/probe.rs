//! Bodies read as each route reads them, for the fuzz target.

use super::decisions::Decisions;
use super::sampling::Kind;
use super::writing::Writing;
use super::{show, weigh};
use crate::async_engine::AsyncEngine;
use crate::error::Result;
use crate::serve::call::Given;
use crate::serve::{App, Settings};

/// Reads bodies and submits what they ask for, without waiting for it.
pub struct WireProbe(App);

impl WireProbe {
    /// Routes that take bodies.
    pub const ROUTES: [&str; 8] = [
        "chat/completions",
        "completions",
        "decisions",
        "classify",
        "loglikelihood",
        "render",
        "tokenize",
        "detokenize",
    ];

    /// Of an engine.
    ///
    /// # Errors
    /// Settings that cannot be.
    pub fn new(engine: AsyncEngine, settings: Settings) -> Result<WireProbe> {
        App::new(engine, settings).map(WireProbe)
    }

    /// Reads a body as one of [`WireProbe::ROUTES`] does; what it asks for is cancelled.
    ///
    /// # Errors
    /// What a client is told.
    pub fn read(&self, route: &str, body: &[u8]) -> std::result::Result<(), String> {
        let server = self.0.server.clone();
        let given = server.engine().map(|engine| Given::of(server.clone(), engine.clone(), body.to_vec().into()));
        let read = given.and_then(|given| match route {
            "chat/completions" => Writing::prepare(&given, Kind::Chat).map(drop),
            "completions" => Writing::prepare(&given, Kind::Text).map(drop),
            "decisions" => Decisions::prepare(&given).map(drop),
            "classify" => weigh::prepare(&given, weigh::choices).map(drop),
            "loglikelihood" => weigh::prepare(&given, weigh::likelihoods).map(drop),
            "render" => show::rendered(&given).map(drop),
            "tokenize" => show::tokens(&given).map(drop),
            _ => show::text(&given).map(drop),
        });
        read.map_err(|problem| problem.message)
    }
}

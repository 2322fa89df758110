//! Evaluations: data, runs, metrics, their page; retrieval.

mod data;
mod eval;
mod metrics;
mod page;
mod retrieval;
mod trouble;
#[path = "../support"]
mod support {
    pub mod evaluation;
    pub mod reference;
}

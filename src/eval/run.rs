//! Asks what is left to ask: prompts are built on other threads, the engine runs as many as it takes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::media::Media;
use super::metrics::roc_auc::class_score;
use super::plan::{Ask, Plan};
use super::progress::{Observer, Progress};
use super::records::{Choice, Outcome, Records};
use super::shots::Similar;
use super::template::Template;
use crate::engine::runner::{self, Load, Supply, Workers};
use crate::engine::{Classification, Engine, EventKind};
use crate::error::{Error, Result};

/// Names whose shares are kept.
const ODDS_KEPT: usize = 5;

/// Answers all questions that have no record.
///
/// # Errors
/// A device that has failed, a file that cannot be written. What fails for one example is its record.
pub fn run(
    plan: &Arc<Plan>,
    template: &Arc<Template>,
    similar: Similar,
    engine: &mut Engine,
    media: &Arc<Media>,
    records: &mut Records,
    observer: &Observer,
) -> Result<()> {
    let total = plan.asks().count();
    let done = total - records.left(plan);
    observer(Progress::Answers { done, total });
    let open = plan.asks().filter(|ask| records.get(*ask).is_none()).flat_map(|ask| {
        let orders = plan.orders(ask.point);
        (0..orders).map(move |order| (ask, order))
    });
    let open: Vec<(Ask, usize)> = open.collect();
    let similar = Arc::new(similar);
    let (plan_there, template, media, preparer) =
        (plan.clone(), template.clone(), media.clone(), engine.preparer().clone());
    let prepare = move |(ask, order): (Ask, usize), ticket: &mut Ticket| {
        // An image that cannot be read is told before the want of others to show with it.
        media.frames(&plan_there.query(ask).medium)?;
        ticket.support = plan_there.support(ask, &similar, &media)?;
        let prepared = preparer.prepare(plan_there.request(ask, order, &ticket.support, &template, &media)?)?;
        // An answer for which there is no room would be cut, and counted as if it had been all.
        let tokens = prepared.prompt_tokens() + plan_there.benchmark.max_new_tokens;
        if tokens > preparer.context_max() {
            let what = "tokens of a prompt and its answer";
            return Err(Error::limit(what, preparer.context_max() as u64, tokens as u64));
        }
        Ok(prepared)
    };
    let source = open.into_iter().map(|(ask, order)| Ok((Ticket { ask, order, support: Vec::new() }, (ask, order))));
    let workers = Workers::start(source, prepare);
    let mut job = Job { plan, workers, records, observer, done, total, weighed: HashMap::new() };
    runner::run(engine, runner::usual_concurrency(engine), &mut job)?;
    job.workers.join();
    Ok(())
}

/// A request that is not answered yet.
struct Ticket {
    ask: Ask,
    /// Which order of the support examples.
    order: usize,
    /// The support examples, in the first order.
    support: Vec<usize>,
}

/// Everything between the workers and the file of answers.
struct Job<'a> {
    plan: &'a Plan,
    workers: Workers<Ticket>,
    records: &'a mut Records,
    observer: &'a Observer,
    done: usize,
    total: usize,
    /// Of questions that are not answered in all orders yet, what each order gave: the names' mean log-likelihoods.
    weighed: HashMap<Ask, BTreeMap<usize, Result<Vec<f64>>>>,
}

impl Job<'_> {
    fn write(&mut self, ticket: &Ticket, outcome: Outcome) -> Result<()> {
        self.records.add(self.plan, ticket.ask, &ticket.support, outcome)?;
        self.done += 1;
        (self.observer)(Progress::Answers { done: self.done, total: self.total });
        Ok(())
    }

    /// Adds what one order gave; after the last one, the record is made.
    fn weigh(&mut self, ticket: &Ticket, found: Result<Classification>) -> Result<()> {
        let of_orders = self.weighed.entry(ticket.ask).or_default();
        let means = |found: Classification| found.choices.iter().map(|choice| choice.mean).collect();
        of_orders.insert(ticket.order, found.map(means));
        if of_orders.len() < self.plan.orders(ticket.ask.point) {
            return Ok(());
        }
        let of_orders = self.weighed.remove(&ticket.ask).expect("it was just there");
        let names = self.plan.set(ticket.ask).queries.choices_of(self.plan.query(ticket.ask));
        // In their order, whichever came first: other sums of the same numbers may differ in their last bit.
        let outcome = match of_orders.into_values().collect::<Result<Vec<_>>>() {
            Ok(of_orders) => Outcome::Choice(choice(names, &of_orders)),
            Err(error) => Outcome::Error(error.to_string()),
        };
        self.write(ticket, outcome)
    }
}

/// The likeliest name by the mean log-likelihood over the orders.
fn choice(names: &[String], of_orders: &[Vec<f64>]) -> Choice {
    let sum = |name: usize| of_orders.iter().map(|means| means[name]).sum::<f64>();
    let means: Vec<f32> = (0..names.len()).map(|name| (sum(name) / of_orders.len() as f64) as f32).collect();
    let best = means.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = means.iter().map(|mean| f64::from(mean - best).exp()).sum();
    let mut odds: Vec<(String, f64)> =
        names.iter().zip(&means).map(|(name, mean)| (name.clone(), f64::from(mean - best).exp() / total)).collect();
    let last = class_score(&means, names.len() - 1);
    // Equal ones stay in their order.
    odds.sort_by(|a, b| b.1.total_cmp(&a.1));
    odds.truncate(ODDS_KEPT);
    Choice { name: odds[0].0.clone(), last, odds }
}

impl Load for Job<'_> {
    type Ticket = Ticket;

    fn next(&mut self, wait: bool) -> Result<Supply<Ticket>> {
        self.workers.next(wait)
    }

    fn refused(&mut self, ticket: Ticket, error: Error) -> Result<()> {
        self.weigh(&ticket, Err(error))
    }

    fn happened(&mut self, ticket: &mut Ticket, event: EventKind) -> Result<()> {
        match event {
            EventKind::Written(answer) => self.write(ticket, Outcome::Text(answer.text)),
            EventKind::Classified(classification) => self.weigh(ticket, Ok(classification)),
            EventKind::Failed(error @ Error::NotFinite { .. }) => self.weigh(ticket, Err(error)),
            // No fault of the example: it is left for the next start.
            EventKind::Failed(error) => Err(error),
            _ => Ok(()),
        }
    }
}

//! What bounds the requests that are inside: places, bytes of bodies, and threads that understand them. All is taken
//! before anything is read.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;

/// A body that hardly holds an image.
const SMALL_BYTES: usize = 16 << 10;
/// Threads for those, beside one a core for all others.
pub(super) const SMALL_THREADS: usize = 4;

/// The door.
pub(super) struct Gate {
    places: Arc<Semaphore>,
    /// Requests inside.
    inside: AtomicUsize,
    bytes_max: u64,
    bytes: AtomicU64,
    /// Threads that decode images at a time: each may hold a large one.
    preparing: Arc<Semaphore>,
    /// Threads for bodies that are too small for much: no text waits behind other people's images.
    preparing_small: Arc<Semaphore>,
    ended: Mutex<Rate>,
}

impl Gate {
    /// A door for so many requests.
    pub fn new(places: usize, bytes_max: u64) -> Arc<Gate> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Gate {
            places: Arc::new(Semaphore::new(places)),
            inside: AtomicUsize::new(0),
            bytes_max,
            bytes: AtomicU64::new(0),
            preparing: Arc::new(Semaphore::new(cores)),
            preparing_small: Arc::new(Semaphore::new(SMALL_THREADS)),
            ended: Mutex::new(Rate::new(Instant::now())),
        })
    }

    /// So many places more.
    pub fn widen(&self, places: usize) {
        self.places.add_permits(places);
    }

    /// A place, if one is free.
    pub fn enter(self: &Arc<Gate>) -> Result<Place, Problem> {
        match self.places.clone().try_acquire_owned() {
            Ok(permit) => {
                self.inside.fetch_add(1, Ordering::Relaxed);
                Ok(Place { gate: self.clone(), _permit: permit })
            }
            Err(_) => {
                let message = "requests: as many as there are places wait or run";
                Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", message))
            }
        }
    }

    #[cfg(test)]
    pub fn free(&self) -> usize {
        self.places.available_permits()
    }

    /// Room for nothing yet.
    pub fn bytes(self: &Arc<Gate>) -> Bytes {
        Bytes { gate: self.clone(), held: 0 }
    }

    /// Bytes of bodies that are inside.
    pub fn bytes_held(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Waits until a thread more may understand a body of so many bytes.
    pub async fn preparing(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let lane = if bytes <= SMALL_BYTES { &self.preparing_small } else { &self.preparing };
        lane.clone().acquire_owned().await.ok()
    }

    /// Seconds after which one more is likely to be let in: those inside, at the rate of the last minute.
    pub fn retry_after(&self) -> u64 {
        let rate = self.ended.lock().unwrap_or_else(PoisonError::into_inner).per_second(Instant::now());
        retry_after(self.inside.load(Ordering::Relaxed), rate)
    }
}

/// With no request ended lately, nothing is known.
const RETRY_UNKNOWN: f64 = 5.0;
const RETRY_MAX: f64 = 60.0;

fn retry_after(inside: usize, rate: f64) -> u64 {
    let seconds = if rate > 0.0 { inside as f64 / rate } else { RETRY_UNKNOWN };
    seconds.ceil().clamp(1.0, RETRY_MAX) as u64
}

/// The place of a request; free again when it is dropped.
pub(super) struct Place {
    gate: Arc<Gate>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.inside.fetch_sub(1, Ordering::Relaxed);
        self.gate.ended.lock().unwrap_or_else(PoisonError::into_inner).count(Instant::now());
    }
}

/// Bytes of a body, counted with those of all others as long as they are held.
pub(super) struct Bytes {
    gate: Arc<Gate>,
    held: u64,
}

impl Bytes {
    /// So many more.
    pub fn take(&mut self, count: u64) -> Result<(), Problem> {
        let max = self.gate.bytes_max;
        let more = |held: u64| held.checked_add(count).filter(|held| *held <= max);
        match self.gate.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => {
                self.held += count;
                Ok(())
            }
            Err(held) => {
                let message =
                    format!("bytes of requests being read: {count} more than {held} is over the limit of {max}");
                Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "bytes_full", message))
            }
        }
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        self.gate.bytes.fetch_sub(self.held, Ordering::Relaxed);
    }
}

/// How many ended in each of the last 60 seconds.
struct Rate {
    begun: Instant,
    counts: [u32; 60],
    /// The second counted last, since it began.
    last: u64,
}

impl Rate {
    fn new(begun: Instant) -> Rate {
        Rate { begun, counts: [0; 60], last: 0 }
    }

    fn count(&mut self, now: Instant) {
        self.roll(now);
        self.counts[(self.last % 60) as usize] += 1;
    }

    fn per_second(&mut self, now: Instant) -> f64 {
        self.roll(now);
        let ended: u32 = self.counts.iter().sum();
        f64::from(ended) / now.saturating_duration_since(self.begun).as_secs_f64().clamp(1.0, 60.0)
    }

    /// Seconds that have passed begin with nothing.
    fn roll(&mut self, now: Instant) {
        let second = now.saturating_duration_since(self.begun).as_secs();
        for passed in (self.last + 1..=second).take(60) {
            self.counts[(passed % 60) as usize] = 0;
        }
        self.last = second.max(self.last);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn places_and_bytes_come_back() {
        let gate = Gate::new(1, 100);
        let place = gate.enter().unwrap_or_else(|_| panic!("a place is free"));
        assert!(gate.enter().is_err_and(|problem| problem.code == "queue_full"));
        drop(place);
        let mut bytes = gate.bytes();
        bytes.take(60).unwrap();
        assert_eq!(bytes.take(41).unwrap_err().code, "bytes_full");
        bytes.take(40).unwrap();
        assert_eq!(gate.bytes().take(u64::MAX).unwrap_err().code, "bytes_full");
        assert_eq!(gate.bytes_held(), 100);
        drop(bytes);
        assert_eq!(gate.bytes_held(), 0);
        gate.widen(1);
        let two = [gate.enter(), gate.enter()];
        assert!(two.iter().all(Result::is_ok));
    }

    #[test]
    fn when_to_come_again_is_those_inside_at_the_rate_of_a_minute() {
        let begun = Instant::now();
        let at = |seconds: f64| begun + Duration::from_secs_f64(seconds);
        let mut rate = Rate::new(begun);
        assert_eq!(rate.per_second(at(3.0)), 0.0);
        (0..20).for_each(|_| rate.count(at(3.5)));
        assert_eq!(rate.per_second(at(10.0)), 2.0);
        assert_eq!(rate.per_second(at(50.0)), 0.4);
        rate.count(at(70.0));
        assert_eq!(rate.per_second(at(70.0)), 1.0 / 60.0, "the others were over a minute ago");
        assert_eq!(rate.per_second(at(1000.0)), 0.0);
        let found = [(5, 2.0), (0, 1.0), (1000, 1.0), (1, 0.0)].map(|(inside, rate)| retry_after(inside, rate));
        assert_eq!(found, [3, 1, 60, 5]);
    }
}

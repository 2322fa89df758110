//! Keys and values in 8 bits: how far that takes answers from those with keys and values as the device stores numbers,
//! and what it saves.

use crate::support::devices::{on_all_cores, with_kernels};
use flamant::demo::{ALPHABETS, Episode, Random, Sheet};
use flamant::{Device, Flamingo, Inspection, KvDtype, Options};

/// What a cache in 8 bits changes in the distributions of next tokens.
#[derive(Debug, Default, Clone, Copy)]
struct Drift {
    positions: usize,
    /// Σ of the Kullback-Leibler divergence from the plain cache, in nats.
    divergence: f64,
    /// Largest difference of a log-probability of a prompt's own token.
    largest: f64,
    /// Where the likeliest token is another.
    others: usize,
}

impl Drift {
    fn joined(self, other: Drift) -> Drift {
        Drift {
            positions: self.positions + other.positions,
            divergence: self.divergence + other.divergence,
            largest: self.largest.max(other.largest),
            others: self.others + other.others,
        }
    }
}

/// Log-probabilities of all tokens.
fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().fold(f64::NEG_INFINITY, |most, &logit| most.max(f64::from(logit)));
    let total: f64 = logits.iter().map(|&logit| (f64::from(logit) - largest).exp()).sum();
    logits.iter().map(|&logit| f64::from(logit) - largest - total.ln()).collect()
}

fn likeliest(logprobs: &[f64]) -> usize {
    (0..logprobs.len()).max_by(|&a, &b| logprobs[a].total_cmp(&logprobs[b])).expect("a vocabulary has tokens")
}

/// Over prompts of five images and names of each alphabet that was kept out of training.
fn drift(device: Device, prompts: usize) -> Drift {
    let sheets: Vec<Sheet> = Sheet::all().unwrap().into_iter().filter(|s| ALPHABETS.contains(&&*s.name)).collect();
    let of_sheet = on_all_cores(&sheets, |sheet| {
        let open = |kv_dtype| Flamingo::demo(&Options::default().device(device).kv_dtype(kv_dtype).threads(1)).unwrap();
        let mut models = [KvDtype::Auto, KvDtype::Int8].map(open);
        let mut random = Random::new(23);
        let mut all = Drift::default();
        for _ in 0..prompts {
            let prompt = Episode::draw(&mut random, sheet, 5, 5).prompt().unwrap();
            let [(plain, plain_own), (int8, int8_own)] = models.each_mut().map(|model| {
                let mut rows = Vec::new();
                let score = model.score_with_logits(&prompt, |_, logits| rows.push(log_softmax(logits))).unwrap();
                (rows, score.logprobs)
            });
            for (plain, int8) in plain.iter().zip(&int8) {
                let divergence: f64 = plain.iter().zip(int8).map(|(p, q)| p.exp() * (p - q)).sum();
                let others = usize::from(likeliest(plain) != likeliest(int8));
                all = all.joined(Drift { positions: 1, divergence, largest: 0.0, others });
            }
            let own = plain_own.iter().zip(&int8_own).filter_map(|(a, b)| Some((a.as_ref()? - b.as_ref()?).abs()));
            all.largest = own.fold(all.largest, f64::max);
        }
        all
    });
    of_sheet.into_iter().fold(Drift::default(), Drift::joined)
}

fn assert_close(device: Device, prompts: usize, most: f64) {
    let Drift { positions, divergence, largest, others } = drift(device, prompts);
    let (divergence, same) = (divergence / positions as f64, 1.0 - others as f64 / positions as f64);
    println!("{device}: {positions} positions, KL {divergence:.2e}, largest {largest:.3}, same token {same:.4}");
    assert!(divergence < most && same > 0.99, "{device}: KL {divergence}, same token {same}, largest {largest}");
}

/// The figures stand in docs/kv-cache.md, of more prompts.
#[test]
fn answers_stay_close_on_the_processor() {
    assert_close(Device::Cpu, 12, 1.5e-4);
}

/// Where what codes stand for is rounded to bf16.
#[test]
fn answers_stay_close_in_kernels() {
    with_kernels().into_iter().for_each(|device| assert_close(device, 2, 3e-4));
}

/// An image of four tiles in Llama-3.2-11B, and a token of it: 101 pages of 64 rows, 8 layers; 32 layers.
#[test]
fn pages_take_half_the_bytes() {
    let memory = Inspection::preset("llama-3.2-11b-vision").unwrap().memory[0];
    assert_eq!((memory.image, memory.image_int8), (211_812_352, 107_560_960));
    assert_eq!((memory.token, memory.token_int8), (131_072, 66_560));
    let card = 80_000_000_000;
    let [plain, int8] = [KvDtype::Auto, KvDtype::Int8].map(|kv_dtype| memory.fits(card, kv_dtype).unwrap());
    assert!(plain.iter().zip(int8).all(|(&plain, int8)| int8 * 100 > plain * 196));
}

//! How far options take the demo model's answers from those with other ones.

use crate::support::devices::on_all_cores;
use flamant::demo::{ALPHABETS, Episode, Random, Sheet};
use flamant::{Flamingo, Options};

/// Which positions of an episode count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Over {
    /// All of the prompt's.
    Prompt,
    /// Those whose next tokens are the right answer's.
    Answer,
}

/// What other options change in the distributions of next tokens.
#[derive(Debug, Default, Clone, Copy)]
pub struct Drift {
    pub positions: usize,
    /// Σ of the Kullback-Leibler divergence from the plain one, in nats.
    pub divergence: f64,
    /// Largest difference of a log-probability of a prompt's own token.
    pub largest: f64,
    /// Where the likeliest token is another.
    pub others: usize,
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
pub fn drift(options: [Options; 2], over: Over, prompts: usize) -> Drift {
    let sheets: Vec<Sheet> = Sheet::all().unwrap().into_iter().filter(|s| ALPHABETS.contains(&&*s.name)).collect();
    let of_sheet = on_all_cores(&sheets, |sheet| {
        let mut models = options.clone().map(|options| Flamingo::demo(&options.threads(1)).unwrap());
        let mut random = Random::new(23);
        let mut all = Drift::default();
        for _ in 0..prompts {
            let episode = Episode::draw(&mut random, sheet, 5, 5);
            let mut prompt = episode.prompt().unwrap();
            let (mut first, mut beyond) = (0, 0);
            if over == Over::Answer {
                // The last token of all has nothing of the answer after it.
                (first, beyond) = (models[0].score(&prompt).unwrap().ids.len() - 1, 1);
                prompt.text(format!("{}.", episode.answer())).unwrap();
            }
            let [(plain, plain_own), (other, other_own)] = models.each_mut().map(|model| {
                let mut rows = Vec::new();
                let score = model.score_with_logits(&prompt, |_, logits| rows.push(log_softmax(logits))).unwrap();
                (rows, score.logprobs)
            });
            for (plain, other) in plain[..plain.len() - beyond].iter().zip(&other).skip(first) {
                let divergence: f64 = plain.iter().zip(other).map(|(p, q)| p.exp() * (p - q)).sum();
                let others = usize::from(likeliest(plain) != likeliest(other));
                all = all.joined(Drift { positions: 1, divergence, largest: 0.0, others });
            }
            let own = plain_own
                .iter()
                .zip(&other_own)
                .skip(first)
                .filter_map(|(a, b)| Some((a.as_ref()? - b.as_ref()?).abs()));
            all.largest = own.fold(all.largest, f64::max);
        }
        all
    });
    of_sheet.into_iter().fold(Drift::default(), Drift::joined)
}

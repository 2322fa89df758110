//! Requests that are made up: images of noise, texts of the tokenizer's own words. A seed repeats them.

use crate::demo::Random;
use crate::image::Image;
use crate::{Engine, Error, Generation, Prompt, Request};

/// What the requests are like.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Images with text before the one that is asked about.
    pub shots: usize,
    /// Tokens of text after each image, roughly.
    pub tokens: usize,
    /// Tokens to write.
    pub max_new_tokens: usize,
    /// Whether all begin with the same shots.
    pub shared: bool,
    /// Requests in a row that ask about the same image.
    pub reuse: u64,
}

/// Makes requests.
#[derive(Clone)]
pub struct Synthetic {
    shape: Shape,
    seed: u64,
    /// Side of the images: what the model wants, so that resizing costs little.
    side: u32,
    /// Each one token, or nearly always.
    words: Vec<String>,
}

/// What random choices are for; each has its own.
#[derive(Clone, Copy)]
enum Purpose {
    Shots = 1,
    Asked,
    Question,
}

/// Words that texts are made of; more would not make them more different.
const WORDS: usize = 1000;

impl Synthetic {
    /// For an engine's model.
    ///
    /// # Errors
    /// A tokenizer without any word of small letters.
    pub fn new(engine: &Engine, shape: Shape, seed: u64) -> Result<Synthetic, Error> {
        let vocabulary = engine.config().decoder.vocabulary as u32;
        let tokens = (0..vocabulary).map(|id| engine.tokenizer().token(id));
        // Words that begin with a space, as vocabularies write it; where there are none, letters.
        let (spaced, bare): (Vec<String>, Vec<String>) = tokens
            .filter(|token| token.trim_start_matches(SPACES).bytes().all(|byte| byte.is_ascii_lowercase()))
            .filter(|token| !token.trim_start_matches(SPACES).is_empty())
            .map(|token| token.replace(SPACES, " "))
            .partition(|word| word.starts_with(' '));
        let mut words = if spaced.is_empty() { bare } else { spaced };
        words.truncate(WORDS);
        if words.is_empty() {
            return Err(Error::argument("the tokenizer: expected words of small letters, found none"));
        }
        Ok(Synthetic { shape, seed, side: engine.config().vision.image_size as u32, words })
    }

    /// The request of this number.
    pub fn request(&self, number: u64) -> Result<Request, Error> {
        let Shape { shots, max_new_tokens, shared, reuse, .. } = self.shape;
        let mut prompt = Prompt::new();
        let mut random = self.random(Purpose::Shots, if shared { 0 } else { number });
        for _ in 0..shots {
            prompt.image(self.image(&mut random)?)?.text(self.text(&mut random))?;
        }
        prompt.image(self.image(&mut self.random(Purpose::Asked, number / reuse))?)?;
        prompt.text(self.text(&mut self.random(Purpose::Question, number)))?;
        Ok(Request::generate(prompt, Generation::default().max_new_tokens(max_new_tokens).ignore_eos(true)))
    }

    fn random(&self, purpose: Purpose, number: u64) -> Random {
        // Odd factors keep the seeds apart.
        let mixed = self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number.wrapping_mul(0xd1b5_4a32_d192_ed03);
        Random::new(mixed.wrapping_mul(4).wrapping_add(purpose as u64))
    }

    fn image(&self, random: &mut Random) -> Result<Image, Error> {
        let bytes = self.side as usize * self.side as usize * 3;
        Image::from_rgb(self.side, self.side, (0..bytes).map(|_| random.below(256) as u8).collect())
    }

    fn text(&self, random: &mut Random) -> String {
        (0..self.shape.tokens).map(|_| self.words[random.below(self.words.len())].as_str()).collect()
    }
}

/// How SentencePiece and byte-level vocabularies write a space.
const SPACES: [char; 2] = ['▁', 'Ġ'];

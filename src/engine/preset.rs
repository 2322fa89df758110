//! Models of made-up weights, for measurements.

use std::path::Path;
use std::sync::Arc;

use super::{Engine, Opened, Options, built_in};
use crate::backend::Device;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::family::paper;
use crate::family::presets::{Preset, preset};
use crate::image::Preprocessor;
use crate::tokenizer::Tokenizer;
use crate::weights::Weights;

impl Engine {
    /// Opens a model of one of [`PRESETS`](crate::PRESETS), whose weights the device makes up. Its tokenizer is that of
    /// the model in the program, and so is the form of its prompts.
    ///
    /// # Errors
    /// A name that there is none of; the processor, which makes no weights up; otherwise as for [`Engine::open`].
    pub fn preset(name: &str, options: &Options) -> Result<Self> {
        Self::made_up(name, preset(name)?, options)
    }

    /// Opens a model of these sizes.
    fn made_up(name: &str, preset: Preset, options: &Options) -> Result<Self> {
        options.check()?;
        if options.device.resolve().0 == Device::Cpu {
            return Err(Error::argument("preset: expected device cuda or emulated, which make weights up, found cpu"));
        }
        let Preset { family, config, .. } = preset;
        let opened = Opened {
            tokenizer: Tokenizer::open(built_in::MODEL, &paper::FAMILY, config.decoder.vocabulary)?,
            preprocessor: Preprocessor::clip(family.preprocessing.crop, config.vision.image_size),
            checkpoint: Arc::new(Checkpoint::empty(Path::new(name))),
            weights: Weights::random(),
            special: Default::default(),
            config,
        };
        Ok(Self::with(opened, options)?.opened())
    }
}

#[cfg(all(test, feature = "emulated"))]
mod tests {
    use super::*;
    use crate::config::{ResamplerConfig, VisionConfig};
    use crate::engine::{EventKind, Generation, Request};
    use crate::image::Image;
    use crate::prompt::Prompt;

    /// One of them in small.
    fn small() -> Preset {
        let mut preset = preset("flamingo-9b").unwrap();
        let config = &mut preset.config;
        let vision = VisionConfig { width: 64, layers: 1, heads: 1, mlp_width: 64, ..config.vision.clone() };
        config.vision = VisionConfig { image_size: 32, patch_size: 16, ..vision };
        let resampler = config.resampler.take().unwrap();
        config.resampler = Some(ResamplerConfig { depth: 1, heads: 1, head_width: 64, mlp_width: 64, ..resampler });
        (config.decoder.width, config.decoder.heads, config.decoder.kv_heads) = (128, 1, 1);
        (config.decoder.layers, config.decoder.mlp_width) = (2, 128);
        (config.gated.heads, config.gated.kv_heads, config.gated.mlp_width) = (1, 1, 128);
        preset
    }

    #[test]
    fn made_up_weights_write() {
        let options = Options::default().device(Device::Emulated).threads(1);
        let mut engine = Engine::made_up("small", small(), &options).unwrap();
        let mut prompt = Prompt::new();
        prompt.image(Image::from_rgb(32, 32, vec![7; 32 * 32 * 3]).unwrap()).unwrap().text("a").unwrap();
        let generation = Generation::default().max_new_tokens(3).ignore_eos(true);
        engine.submit(Request::generate(prompt, generation)).unwrap();
        let mut written = Vec::new();
        while !engine.is_idle() {
            for event in engine.step() {
                match event.kind {
                    EventKind::Written(answer) => written.push(answer.ids.len()),
                    EventKind::Failed(error) => panic!("{error}"),
                    _ => {}
                }
            }
        }
        assert_eq!(written, [3]);
    }
}

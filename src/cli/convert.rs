//! `flamant convert`: three sources of an OpenFlamingo to one folder; a model with what is merged into it to another.

use std::borrow::Cow;
use std::path::PathBuf;

use crate::MediaMask;
use crate::convert::{ConvertOptions, MergeOptions, convert, merge};
use crate::hub;
use clap::Args;
use clap::builder::RangedU64ValueParser;

use super::{Outcome, Run, progress, say};

/// Join an OpenFlamingo checkpoint, its language model and its vision model in one folder, or merge an adapter
#[derive(Args)]
#[command(
    next_help_heading = "Files",
    after_help = "\
Examples:
  flamant convert --checkpoint checkpoint.pt --language-model mpt-7b --vision-model clip.pt -o of-9b
  flamant convert --model of-9b-v1 --media-mask following -o of-9b-v1-following
  flamant convert --model idefics-9b --adapter my-adapter -o idefics-9b-mine
  flamant convert --model OTTER-Image-MPT7B --tokenizer mpt-7b-instruct -o otter"
)]
pub struct Convert {
    /// The published checkpoint.pt or model.pt
    #[arg(long, value_name = "FILE", required_unless_present = "model")]
    checkpoint: Option<PathBuf>,
    /// Folder of the language model: config.json, weights, tokenizer.json
    #[arg(long, value_name = "DIR", required_unless_present = "model")]
    language_model: Option<PathBuf>,
    /// CLIP weights: open_clip, transformers or OpenAI names; .safetensors, .pt or .bin. With --model, of transformers,
    /// for a model that was saved without them (flamingo-mini)
    #[arg(long, value_name = "FILE", required_unless_present = "model")]
    vision_model: Option<PathBuf>,
    /// A gated block stands before every N-th layer; read from the checkpoint by default
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024))]
    cross_attn_every: Option<usize>,
    /// Folder of a whole model to write anew with what is merged into it, in place of the three sources
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with_all = ["checkpoint", "language_model", "cross_attn_every"]
    )]
    model: Option<PathBuf>,
    /// Folder of the language model's tokenizer, for a model that has none (Otter)
    #[arg(long, value_name = "DIR", requires = "model")]
    tokenizer: Option<PathBuf>,
    /// LoRA to merge: a folder of PEFT (adapter_config.json), or a file of pairs (Multimodal-GPT)
    #[arg(long, value_name = "PATH")]
    adapter: Option<PathBuf>,
    /// Which image text sees: the one before it (preceding; OpenFlamingo 2), or, as Multimodal-GPT and Med-Flamingo
    /// run, the one after it and none behind the last (following)
    #[arg(long, value_name = "RULE", value_parser = MediaMask::named)]
    media_mask: Option<MediaMask>,
    /// Folder to make
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
}

impl Run for Convert {
    fn run(self) -> Outcome {
        // The length comes with the first bytes.
        let bar = progress(1, "{bar:40} {bytes}/{total_bytes} {eta}");
        let mut advance = |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        };
        let Convert { adapter, media_mask, output, tokenizer, cross_attn_every, .. } = self;
        let written = output.clone();
        let found = |path: Option<PathBuf>| path.map(|path| hub::resolve(&path).map(Cow::into_owned)).transpose();
        let [model, language_model, adapter] = [found(self.model)?, found(self.language_model)?, found(adapter)?];
        match (model, self.checkpoint, language_model, self.vision_model) {
            (Some(model), _, _, vision_model) => {
                let options = MergeOptions::new(model, output)
                    .adapter(adapter)
                    .tokenizer(tokenizer)
                    .vision_model(vision_model)
                    .media_mask(media_mask);
                merge(&options, &mut advance)?;
            }
            (None, Some(checkpoint), Some(language_model), Some(vision_model)) => {
                let options = ConvertOptions::new(checkpoint, language_model, vision_model, output)
                    .cross_attn_every(cross_attn_every)
                    .adapter(adapter)
                    .media_mask(media_mask);
                convert(&options, &mut advance)?;
            }
            _ => unreachable!("one or the other is required"),
        }
        bar.finish_and_clear();
        say(format_args!("{} is ready", written.display()));
        Ok(())
    }
}

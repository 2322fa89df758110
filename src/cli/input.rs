//! Arguments that several commands share: the model, where it runs, and the prompt.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::image;
use crate::video::FrameSampling;
use crate::{
    Chat, ChatTemplate, Device, Dtype, Engine, Error, Flamingo, Inspection, KvDtype, Limits, Load, Options, PRESETS,
    Prompt, PromptLimits, Role, Tokenizer,
};
use clap::builder::PossibleValuesParser;
use clap::{ArgMatches, Args, FromArgMatches};

use super::{say, streams};

/// Where a model runs.
#[derive(Args)]
pub struct DeviceArguments {
    /// Where to run: cpu, cuda, cuda:N, emulated, or auto (a usable GPU if there is one, else cpu)
    #[arg(help_heading = "Device", long, default_value = "cpu", env = "FLAMANT_DEVICE", value_parser = |text: &str| text.parse::<Device>())]
    device: Device,
    /// How the device stores numbers: f32 on cpu, or bf16 for products of weights in bf16 with activations rounded to
    /// it, which is faster; bf16 or f16 on cuda and emulated, if not given
    /// f16 where all weights are, else bf16
    #[arg(help_heading = "Device", long, env = "FLAMANT_DTYPE", value_parser = |text: &str| text.parse::<Dtype>())]
    dtype: Option<Dtype>,
    /// How keys and values are stored: auto (as all numbers), or int8 (half the bytes of bf16 or a quarter of f32, for
    /// answers that differ within rounding)
    #[arg(help_heading = "Device", long, default_value_t, env = "FLAMANT_KV_DTYPE", value_parser = |text: &str| text.parse::<KvDtype>())]
    kv_dtype: KvDtype,
    /// Worker threads on the processor; 0 for one a core
    #[arg(help_heading = "Device", long, default_value_t = 0, env = "FLAMANT_THREADS")]
    threads: usize,
    /// How weights come to memory: map (opens at once; the files must stay as they are), or read (copied when opened)
    #[arg(help_heading = "Device", long, default_value_t, env = "FLAMANT_LOAD", value_parser = |text: &str| text.parse::<Load>())]
    load: Load,
    /// Tokens of a sequence at most, prompt and answer; what the model was made for, if not given, as far as there is
    /// memory
    #[arg(help_heading = "Device", long, value_name = "N")]
    context: Option<usize>,
}

impl DeviceArguments {
    /// Opens a model here.
    pub fn open(&self, open: impl FnOnce(&Options) -> Result<Flamingo, Error>) -> Result<Flamingo, Error> {
        open(&self.options(Limits::default()))
    }

    /// Opens an engine here.
    pub fn engine(
        &self,
        limits: &LimitArguments,
        open: impl FnOnce(&Options) -> Result<Engine, Error>,
    ) -> Result<Engine, Error> {
        open(&self.options(limits.limits()))
    }

    /// Whether every number is in its range.
    pub fn check(&self, limits: Limits) -> Result<(), Error> {
        Options::default().threads(self.threads).context_max(self.context).limits(limits).check()
    }

    /// What a model is opened with. Where the device was left open, standard error says which it is, and why no GPU if
    /// there seems to be one.
    fn options(&self, limits: Limits) -> Options {
        let (device, refused) = self.device.resolve();
        if self.device == Device::Auto {
            say(format_args!("device {device}{}", refused.map_or(String::new(), |reason| format!(" ({reason})"))));
        }
        Options::default()
            .device(device)
            .dtype(self.dtype)
            .kv_dtype(self.kv_dtype)
            .threads(self.threads)
            .limits(limits)
            .load(self.load)
            .context_max(self.context)
    }
}

/// What an engine may use.
#[derive(Args)]
pub struct LimitArguments {
    /// Requests that run at a time
    #[arg(help_heading = "Engine limits", long, value_name = "N", default_value_t = Limits::default().max_sequences)]
    max_sequences: usize,
    /// Tokens of one step; 2048 on a GPU (less where memory is short) and 256 elsewhere, if not given
    #[arg(help_heading = "Engine limits", long, value_name = "N")]
    max_batched_tokens: Option<usize>,
    /// Images encoded in one step; 32 on a GPU (less where memory is short) and 8 elsewhere, if not given
    #[arg(help_heading = "Engine limits", long, value_name = "N")]
    max_batched_images: Option<usize>,
    /// Pages of 16 tokens; what memory allows and is of use, if not given
    #[arg(help_heading = "Engine limits", long, value_name = "N")]
    text_pages: Option<usize>,
    /// Pages of 64 rows of an image; what memory allows, those of 256 images at most, if not given
    #[arg(help_heading = "Engine limits", long, value_name = "N")]
    media_pages: Option<usize>,
    /// Turn prefix caching off: compute what prompts have in common for each of them again
    #[arg(help_heading = "Engine limits", long, alias = "no-sharing")]
    no_prefix_caching: bool,
}

impl LimitArguments {
    /// As the library takes them.
    pub fn limits(&self) -> Limits {
        Limits::default()
            .max_sequences(self.max_sequences)
            .max_batched_tokens(self.max_batched_tokens)
            .max_batched_images(self.max_batched_images)
            .text_pages(self.text_pages)
            .media_pages(self.media_pages)
            .prefix_caching(!self.no_prefix_caching)
    }
}

/// Which model.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct ModelFolder {
    /// Model folder: IDEFICS, Llama 3.2 Vision, Otter or flamingo-mini as published, or what `flamant convert` made; or
    /// the name of a downloaded one: OWNER/NAME[@REVISION]
    #[arg(value_name = "MODEL", help_heading = None::<&str>)]
    folder: Option<PathBuf>,
    /// The same as an option
    #[arg(help_heading = "Model", short, long, value_name = "MODEL")]
    model: Option<PathBuf>,
}

impl ModelFolder {
    /// Its folder.
    pub fn path(&self) -> &Path {
        self.folder.as_ref().or(self.model.as_ref()).expect("one of the two is required")
    }
}

/// Which model, or the sizes of one.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct FolderOrPreset {
    /// Model folder: IDEFICS, Llama 3.2 Vision, Otter or flamingo-mini as published, or what `flamant convert` made; or
    /// the name of a downloaded one: OWNER/NAME[@REVISION]
    #[arg(value_name = "MODEL", help_heading = None::<&str>)]
    folder: Option<PathBuf>,
    /// The same as an option
    #[arg(help_heading = "Model", short, long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// A size of the Flamingo paper, whose weights nobody has: published widths, but a transformer in the NFNet's place
    /// and rotary positions in place of relative ones
    #[arg(help_heading = "Model", long, value_name = "NAME", value_parser = PossibleValuesParser::new(PRESETS))]
    preset: Option<String>,
}

impl FolderOrPreset {
    /// What is in it.
    pub fn inspection(&self) -> Result<Inspection, Error> {
        match &self.preset {
            Some(name) => Inspection::preset(name),
            None => Inspection::of(self.folder.as_ref().or(self.model.as_ref()).expect("one of them is required")),
        }
    }
}

/// Which model, or that in the program.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct ModelOrDemo {
    /// Model folder: IDEFICS, Llama 3.2 Vision, Otter or flamingo-mini as published, or what `flamant convert` made; or
    /// the name of a downloaded one: OWNER/NAME[@REVISION]
    #[arg(value_name = "MODEL", help_heading = None::<&str>)]
    folder: Option<PathBuf>,
    /// The same as an option
    #[arg(help_heading = "Model", short, long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Take the model in the program; `eval` asks it for names of symbols from alphabets that it has never seen
    #[arg(help_heading = "Model", long)]
    demo: bool,
}

impl ModelOrDemo {
    /// Opens the model.
    pub fn open(&self, device: &DeviceArguments) -> Result<Flamingo, Error> {
        device.open(|options| match self.folder.as_ref().or(self.model.as_ref()) {
            Some(folder) => Flamingo::open(folder, options),
            None => Flamingo::demo(options),
        })
    }

    /// Opens an engine of the model.
    pub fn engine(&self, device: &DeviceArguments, limits: &LimitArguments) -> Result<Engine, Error> {
        device.engine(limits, |options| self.engine_with(options))
    }

    /// Opens an engine of the model with all its options.
    pub fn engine_with(&self, options: &Options) -> Result<Engine, Error> {
        match self.folder.as_ref().or(self.model.as_ref()) {
            Some(folder) => Engine::open(folder, options),
            None => Engine::demo(options),
        }
    }
}

/// Which model, and where it runs.
#[derive(Args)]
pub struct ModelArguments {
    #[command(flatten)]
    model: ModelFolder,
    #[command(flatten)]
    device: DeviceArguments,
}

impl ModelArguments {
    /// Whether every number is in its range.
    pub fn check(&self, limits: Limits) -> Result<(), Error> {
        self.device.check(limits)
    }

    /// Opens the model.
    pub fn open(&self) -> Result<Flamingo, Error> {
        self.device.open(|options| Flamingo::open(self.model.path(), options))
    }

    /// Opens an engine of the model.
    pub fn engine(&self, limits: &LimitArguments) -> Result<Engine, Error> {
        self.device.engine(limits, |options| Engine::open(self.model.path(), options))
    }
}

/// Which frames of videos are read.
#[derive(Args)]
pub struct VideoArguments {
    /// Frames looked at for a second of each video
    #[arg(help_heading = "Videos", long, value_name = "RATE", default_value_t = FrameSampling::default().per_second)]
    fps: f64,
    /// Frames kept of each video, evenly over it
    #[arg(help_heading = "Videos", long, value_name = "N", default_value_t = FrameSampling::default().frames_max)]
    frames: usize,
}

impl VideoArguments {
    /// As the library takes it.
    pub fn sampling(&self) -> FrameSampling {
        FrameSampling::default().per_second(self.fps).frames_max(self.frames)
    }
}

/// The prompt: a file, or texts, images and videos in the order given.
pub struct PromptArguments {
    file: Option<PathBuf>,
    parts: Vec<Given>,
    chat: bool,
    chat_template: Option<String>,
    system: Option<String>,
    sampling: FrameSampling,
    limits: PromptLimits,
}

enum Given {
    Text(String),
    Image(PathBuf),
    Video(PathBuf),
}

/// What clap parses of a prompt; the order across `--text`, `--image` and `--video` is read from their positions.
#[derive(Args)]
#[group(id = "parts", required = true, multiple = true)]
struct Flags {
    /// Prompt file: [{"text": "..."}, {"image": "a.png"}, {"video": "b.mp4"}, ...]; - reads standard input
    #[arg(help_heading = "Prompt", short, long, value_name = "FILE", conflicts_with_all = ["text", "image", "video"])]
    prompt: Option<PathBuf>,
    /// Text of the prompt; repeat, in order with --image and --video
    #[arg(help_heading = "Prompt", short, long, value_name = "TEXT", allow_hyphen_values = true)]
    text: Vec<String>,
    /// Image of the prompt (PNG, JPEG, WebP, GIF, BMP); repeat, in order with --text and --video
    #[arg(help_heading = "Prompt", short, long, value_name = "FILE")]
    image: Vec<PathBuf>,
    /// Video of the prompt: a folder of images, an animated GIF or WebP, or a video file, which ffmpeg reads
    /// (FLAMANT_FFMPEG names the program); repeat, in order with --text and --image
    #[arg(help_heading = "Prompt", long, value_name = "PATH")]
    video: Vec<PathBuf>,
    /// The prompt is a conversation, written as the model's family writes turns: a prompt file is
    /// [{"role": "user", "content": "..." or parts}, ...] with roles system, user and assistant; texts, images and
    /// videos are one turn of the user
    #[arg(help_heading = "Prompt", long)]
    chat: bool,
    /// How turns are written, in place of the family's way: a template's name (idefics, idefics-instruct, openflamingo,
    /// mllama, otter, flamingo-mini, demo, raw), or a JSON file of its texts
    #[arg(help_heading = "Prompt", long, value_name = "FILE|NAME", requires = "chat")]
    chat_template: Option<String>,
    /// What the system tells the model before the conversation
    #[arg(
        help_heading = "Prompt",
        long,
        value_name = "TEXT",
        requires = "chat",
        conflicts_with = "prompt",
        allow_hyphen_values = true
    )]
    system: Option<String>,
}

/// How large images may be.
#[derive(Args)]
pub struct PixelArguments {
    /// Pixels that one image may have; fewer than the usual limit do not lower it
    #[arg(help_heading = "Prompt", long, value_name = "N", default_value_t = image::Limits::default().pixels_max,
        value_parser = clap::value_parser!(u64).range(1..))]
    max_pixels: u64,
}

impl PixelArguments {
    pub fn limits(&self) -> PromptLimits {
        PromptLimits::default().raise_pixels(self.max_pixels)
    }
}

impl Args for PromptArguments {
    fn augment_args(command: clap::Command) -> clap::Command {
        let command = VideoArguments::augment_args(PixelArguments::augment_args(Flags::augment_args(command)));
        // In a prompt file they stand beside "video".
        let beside = |arg: clap::Arg| arg.requires("video").conflicts_with("prompt");
        ["fps", "frames"].into_iter().fold(command, |command, name| command.mut_arg(name, beside))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for PromptArguments {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let flags = Flags::from_arg_matches(matches)?;
        let places = |name: &str| matches.indices_of(name).into_iter().flatten().collect::<Vec<_>>();
        let texts = places("text").into_iter().zip(flags.text.into_iter().map(Given::Text));
        let images = places("image").into_iter().zip(flags.image.into_iter().map(Given::Image));
        let videos = places("video").into_iter().zip(flags.video.into_iter().map(Given::Video));
        let mut parts: Vec<(usize, Given)> = texts.chain(images).chain(videos).collect();
        parts.sort_by_key(|(place, _)| *place);
        Ok(PromptArguments {
            file: flags.prompt,
            parts: parts.into_iter().map(|(_, part)| part).collect(),
            chat: flags.chat,
            chat_template: flags.chat_template,
            system: flags.system,
            sampling: VideoArguments::from_arg_matches(matches)?.sampling(),
            limits: PixelArguments::from_arg_matches(matches)?.limits(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl PromptArguments {
    /// Whether every number is in its range.
    pub fn check(&self) -> Result<(), Error> {
        self.sampling.check()
    }

    /// Reads and decodes the prompt.
    pub fn read(&self) -> Result<Asked, Error> {
        let asked = if self.chat {
            let template = self.chat_template.as_deref().map(ChatTemplate::open).transpose()?.map(Box::new);
            Asked::Chat(self.conversation()?, template)
        } else {
            Asked::Prompt(self.decoded()?)
        };
        asked.notes().iter().for_each(say);
        Ok(asked)
    }

    fn decoded(&self) -> Result<Prompt, Error> {
        let limits = self.limits.clone();
        match self.file.as_deref() {
            Some(file) if file.as_os_str() == "-" => {
                Prompt::from_json(&standard_input(&limits)?, "standard input", Path::new(""), limits)
            }
            Some(file) => Prompt::from_file(file, limits),
            None => {
                let mut prompt = Prompt::with_limits(limits);
                for part in &self.parts {
                    match part {
                        Given::Text(text) => prompt.text(text)?,
                        Given::Image(path) => prompt.image_file(path)?,
                        Given::Video(path) => prompt.video_file(path, &self.sampling)?,
                    };
                }
                Ok(prompt)
            }
        }
    }

    fn conversation(&self) -> Result<Chat, Error> {
        let limits = self.limits.clone();
        match self.file.as_deref() {
            Some(file) if file.as_os_str() == "-" => {
                Chat::from_json(&standard_input(&limits)?, "standard input", Path::new(""), limits)
            }
            Some(file) => Chat::from_file(file, limits),
            None => {
                let mut chat = Chat::with_limits(limits);
                if let Some(system) = &self.system {
                    let mut text = Prompt::new();
                    text.text(system)?;
                    chat.turn(Role::System, text)?;
                }
                chat.turn(Role::User, self.decoded()?)?;
                Ok(chat)
            }
        }
    }
}

fn standard_input(limits: &PromptLimits) -> Result<String, Error> {
    let mut text = String::new();
    let read = streams::input()?.take(limits.bytes_max.saturating_add(1)).read_to_string(&mut text);
    read.map(|_| text).map_err(|error| Error::file("standard input", error))
}

/// What is asked of a model, whose family writes conversations in its own way.
pub enum Asked {
    Prompt(Prompt),
    /// In the words of a template, if not in the family's.
    Chat(Chat, Option<Box<ChatTemplate>>),
}

impl Asked {
    fn notes(&self) -> &[String] {
        match self {
            Asked::Prompt(prompt) => prompt.notes(),
            Asked::Chat(chat, _) => chat.notes(),
        }
    }

    /// The prompt, and texts that end an answer to it.
    pub fn prompt(self, tokenizer: &Tokenizer) -> Result<(Prompt, Vec<String>), Error> {
        match self {
            Asked::Prompt(prompt) => Ok((prompt, Vec::new())),
            Asked::Chat(chat, template) => {
                let template = template.map(|template| template.reserving(tokenizer.chat()));
                let template = template.as_ref().unwrap_or(tokenizer.chat());
                Ok((chat.prompt(template)?, template.stop.clone()))
            }
        }
    }
}

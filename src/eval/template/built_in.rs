//! The forms that are built in, as templates.

use super::{Kind, Piece, Template, pieces};

impl Template {
    /// The template of a name in [`Template::NAMES`], for examples of a kind.
    pub fn named(name: &str, kind: Kind) -> Option<Template> {
        match name {
            "openflamingo" => Some(open_flamingo(kind)),
            "idefics" => Some(idefics(kind)),
            "idefics-instruct" => Some(idefics_instruct(kind)),
            "otter" => Some(otter(kind)),
            "mmgpt" => Some(mmgpt(kind)),
            "med-flamingo" => Some(med_flamingo(kind)),
            "flamingo-mini" => Some(flamingo_mini(kind)),
            // Ours, as those of IDEFICS: a base model of the same kind.
            "mllama" => Some(idefics(kind)),
            "mllama-instruct" => Some(mllama_instruct(kind)),
            "demo" => Some(demo()),
            _ => None,
        }
    }
}

/// A form that begins with nothing and weighs bare names.
fn template(support: &str, between: &str, queries: &str) -> Template {
    let pieces = |template| pieces(template).expect("templates that are built in are sound");
    Template {
        begin: String::new(),
        support: pieces(support),
        between: between.to_owned(),
        queries: pieces(queries),
        choice: vec![Piece::Answer],
        stop: Vec::new(),
        no_repeat_ngram_size: 0,
    }
}

/// OpenFlamingo 2.0.1 (`eval/models/open_flamingo.py`, assembled by `eval/evaluate.py`): a line break after each
/// example shown, but none between classified ones. Its end of chunk is a stop token of the family.
fn open_flamingo(kind: Kind) -> Template {
    let (queries, between) = match kind {
        Kind::Caption => ("{image}Output:", "\n"),
        Kind::Question => ("{image}Question:{question} Short answer:", "\n"),
        Kind::Classify => ("{image}Output:", ""),
        Kind::Memes => ("{image}is an image with: '{question}' written on it. Is it hateful? Answer:", ""),
    };
    template(&format!("{queries}{{answer}}<|endofchunk|>"), between, queries)
}

/// IDEFICS: the question's form is the model card's, the others are ours in its manner. Base models do not stop by
/// themselves; the next line is the next example's.
fn idefics(kind: Kind) -> Template {
    let (begin, queries) = match kind {
        Kind::Caption => ("Instruction: provide a short caption of the image.\n", "{image}Caption:"),
        Kind::Question => (
            "Instruction: provide an answer to the question. Use the image to answer.\n",
            "{image}Question: {question} Answer:",
        ),
        Kind::Classify => ("Instruction: name what the image shows.\n", "{image}Name:"),
        Kind::Memes => (
            "Instruction: answer yes or no. Use the image and the text written on it to answer.\n",
            "{image}Text: {question} Question: Is it hateful? Answer:",
        ),
    };
    let template = template(&format!("{queries} {{answer}}"), "\n", queries);
    Template { begin: begin.to_owned(), stop: vec!["\n".to_owned()], ..template }
}

/// IDEFICS-instruct: the turns are the model card's, what is asked in them is ours. Its end of utterance is a stop
/// token of the family.
fn idefics_instruct(kind: Kind) -> Template {
    let asks = match kind {
        Kind::Caption => "Describe this image in one short sentence.",
        Kind::Question => "{question} Answer in one word or a few.",
        Kind::Classify => "Name what this image shows.",
        Kind::Memes => "The text \"{question}\" is written on this image. Is it hateful? Answer yes or no.",
    };
    let queries = format!("User: {asks}{{image}}<end_of_utterance>\nAssistant:");
    template(&format!("{queries} {{answer}}<end_of_utterance>"), "\n", &queries)
}

/// What instruction models without an evaluation form of their own are asked.
fn instruction(kind: Kind) -> &'static str {
    match kind {
        Kind::Caption => "Describe this image in one short sentence.",
        Kind::Question => "{question}",
        Kind::Classify => "What does this image show?",
        Kind::Memes => "The text \"{question}\" is written on this image. Is it hateful? Answer yes or no.",
    }
}

/// Otter (`pipeline/demos`): examples stand one after the other with nothing between them. Its end of chunk is a stop
/// token of the family.
fn otter(kind: Kind) -> Template {
    let queries = format!("{{image}}User: {} GPT:<answer>", instruction(kind));
    template(&format!("{queries} {{answer}}<|endofchunk|>"), "", &queries).with_no_repeat_ngram_size(3)
}

/// Multimodal-GPT (`app.py`), which was not trained with examples before the question.
fn mmgpt(kind: Kind) -> Template {
    let queries = format!("### Image:\n{{image}}\n\n### Instruction:\n{}\n\n### Response:\n", instruction(kind));
    let begin =
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.";
    let template = template(&format!("{queries}{{answer}}"), "\n\n", &queries);
    Template { begin: format!("{begin}\n\n"), stop: vec!["###".to_owned()], ..template }
}

/// Med-Flamingo (`scripts/demo.py`).
fn med_flamingo(kind: Kind) -> Template {
    let queries = format!("{{image}}Question: {} Answer:", instruction(kind));
    let begin = "You are a helpful medical assistant. You are being provided with images, a question about the image \
                 and an answer. Follow the examples and answer the last question. ";
    let template = template(&format!("{queries} {{answer}}<|endofchunk|>"), "", &queries);
    Template { begin: begin.to_owned(), ..template }
}

/// flamingo-mini (`README.md`), a model of captions.
fn flamingo_mini(kind: Kind) -> Template {
    let queries = match kind {
        Kind::Question | Kind::Memes => "{image}Question: {question} Output: ",
        Kind::Caption | Kind::Classify => "{image}Output: ",
    };
    template(&format!("{queries}{{answer}}<EOC>"), "", queries)
}

/// Llama 3.2 Vision, instruct: the turns are the published template's, what is asked in them is ours. Its ends of turns
/// are in its `generation_config.json`.
fn mllama_instruct(kind: Kind) -> Template {
    let asks = match kind {
        Kind::Caption => "Describe this image in one short sentence.",
        Kind::Question => "{question} Answer in one word or a few.",
        Kind::Classify => "Name what this image shows.",
        Kind::Memes => "The text \"{question}\" is written on this image. Is it hateful? Answer yes or no.",
    };
    let turn = |role: &str| format!("<|start_header_id|>{role}<|end_header_id|>\n\n");
    let queries = format!("{}{{image}}{asks}<|eot_id|>{}", turn("user"), turn("assistant"));
    let template = template(&format!("{queries}{{answer}}<|eot_id|>"), "", &queries);
    Template { begin: "<|begin_of_text|>".to_owned(), ..template }
}

/// The model in the box: an image, its name and a full stop ([`Episode::prompt`](crate::demo::Episode::prompt)).
fn demo() -> Template {
    let full_stop = ".".to_owned();
    let template = template("{image}{answer}.", "", "{image}");
    Template { choice: vec![Piece::Answer, Piece::Text(full_stop.clone())], stop: vec![full_stop], ..template }
}

//! How the prompts of a family are written, and which images each token sees: choices that all families make.

use super::fields::{Fields, quoted};
use crate::error::{Error, Result};
use crate::kv::MediaSeen;

/// How prompts are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Template {
    /// Stands for an image, or for a video.
    pub image: &'static str,
    /// Tokens of which any one stands for an image, where its text is made of several; none: the text is one token.
    pub image_tokens: &'static [&'static str],
    /// Stands after each image, and before one that follows no other.
    pub fence: Option<&'static str>,
    /// How a prompt begins.
    pub begin: Begin,
    /// Ends a document, and with it an answer, where the tokenizer names no `eos_token`. None: no document ends.
    pub document_end: Option<&'static str>,
    /// Ends a turn, and with it an answer. None: files of the model name all that does.
    pub turn_end: Option<&'static str>,
    /// Whether tokenizers may lack the end of a turn: those of models without turns.
    pub turn_end_optional: bool,
    /// Whether the end of a turn is put between two texts that follow each other, if the tokenizer has it.
    pub turn_end_between_texts: bool,
    /// Whether spaces at both ends of a text are dropped.
    pub trims: bool,
    /// Which images a token of the prompt sees.
    pub media_mask: MediaMask,
    /// Whether tokens after the prompt see what its last token sees; else they see no image.
    pub answer_sees_media: bool,
}

/// Keys of `config.json` that say so, where a family leaves it to its checkpoints.
pub(crate) const MEDIA_MASK_KEY: &str = "media_mask";
const ANSWER_SEES_MEDIA_KEY: &str = "answer_sees_media";

impl Template {
    /// The same with the media mask that a configuration names. By the rule before OpenFlamingo 2.0, what follows the
    /// last image sees none, and neither does an answer.
    ///
    /// # Errors
    /// A mask that is not known; either key in a family that has one mask.
    pub(super) fn masked_as(self, fields: &Fields) -> Result<Template> {
        if !self.media_mask.is_choice() {
            [MEDIA_MASK_KEY, ANSWER_SEES_MEDIA_KEY].into_iter().try_for_each(|key| fields.absent(key))?;
            return Ok(self);
        }
        let mut template = self;
        if fields.get(MEDIA_MASK_KEY).is_some() {
            template.media_mask = *fields.one_of(MEDIA_MASK_KEY, &MediaMask::CHOICES, |mask| mask.name())?;
            template.answer_sees_media &= template.media_mask != MediaMask::Following;
        }
        template.answer_sees_media = fields.flag(ANSWER_SEES_MEDIA_KEY, template.answer_sees_media)?;
        Ok(template)
    }

    /// For each token of a prompt the images (from 0) that it sees, and at the end those that tokens after the prompt
    /// see; `image` are the tokens of markers, `end` ends a document.
    pub(crate) fn media(&self, ids: &[u32], image: &[u32], end: Option<u32>) -> Vec<MediaSeen> {
        let mut seen = self.media_mask.of(ids, image, end);
        let last = seen.last().copied().filter(|_| self.answer_sees_media);
        seen.push(last.unwrap_or(MediaSeen::NOTHING));
        seen
    }
}

/// How a prompt begins. A text here is that of the token which the tokenizer names `bos_token`, if it names one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Begin {
    /// The tokenizer adds what it adds by itself.
    Tokenizer,
    /// With this text, and the tokenizer adds nothing.
    Text(&'static str),
    /// This text stands behind the images that a prompt begins with, unless the prompt has it somewhere; and the
    /// tokenizer adds what it adds by itself, unless the prompt begins with this text.
    BehindImages(&'static str),
}

/// Which images each token of a prompt sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MediaMask {
    /// The last one before it, its own marker included (paper 2.3).
    Preceding,
    /// The last one before it in its document: none after an end of a document until the next image.
    PrecedingInDocument,
    /// The last group of images that follow each other without a token between; of its own group, a marker sees those
    /// up to itself.
    PrecedingGroup,
    /// A marker sees its own, other text the next one after it: none behind the last (open_flamingo before 2.0, which
    /// trained with a coin between both rules).
    Following,
}

impl MediaMask {
    /// Those between which a `config.json` may choose.
    const CHOICES: [MediaMask; 2] = [MediaMask::Preceding, MediaMask::Following];

    /// Whether a `config.json` may choose another in its place.
    pub(crate) fn is_choice(self) -> bool {
        MediaMask::CHOICES.contains(&self)
    }

    /// What configurations and reports call it.
    pub fn name(self) -> &'static str {
        match self {
            MediaMask::Preceding => "preceding",
            MediaMask::PrecedingInDocument => "preceding_in_document",
            MediaMask::PrecedingGroup => "preceding_group",
            MediaMask::Following => "following",
        }
    }

    /// The one of that name, of those between which a checkpoint may choose.
    ///
    /// # Errors
    /// [`Error::Argument`] with the names that there are.
    pub fn named(name: &str) -> Result<MediaMask> {
        let found = MediaMask::CHOICES.into_iter().find(|mask| mask.name() == name);
        let expected = "media-mask: expected preceding or following";
        found.ok_or_else(|| Error::argument(format!("{expected}, found {}", quoted(name))))
    }

    /// For each token the images (from 0) that it sees; `image` are the tokens of markers, `end` ends a document.
    fn of(self, ids: &[u32], image: &[u32], end: Option<u32>) -> Vec<MediaSeen> {
        let end = end.filter(|_| self == MediaMask::PrecedingInDocument);
        let all = ids.iter().filter(|id| image.contains(id)).count() as u32;
        let next = |images: u32| if images < all { MediaSeen::one(images) } else { MediaSeen::NOTHING };
        let mut images = 0;
        let mut current = if self == MediaMask::Following { next(0) } else { MediaSeen::NOTHING };
        let mut mask = Vec::with_capacity(ids.len());
        let mut previous = None;
        for &id in ids {
            if image.contains(&id) {
                match self {
                    MediaMask::PrecedingGroup if previous.is_some_and(|id| image.contains(&id)) => current.images += 1,
                    _ => current = MediaSeen::one(images),
                }
                images += 1;
            }
            previous = Some(id);
            mask.push(current);
            if image.contains(&id) && self == MediaMask::Following {
                current = next(images);
            }
            // The end token itself still sees the image.
            if Some(id) == end {
                current = MediaSeen::NOTHING;
            }
        }
        mask
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::family::Family;

    /// Masks of transformers' IDEFICS processor, and text times of open_flamingo.
    #[test]
    fn the_media_mask_is_the_references() {
        let idefics: Value = serde_json::from_str(include_str!("../../tests/data/semantics/image_masks.json")).unwrap();
        let open_flamingo: Value =
            serde_json::from_str(include_str!("../../tests/data/semantics/text_times.json")).unwrap();
        let number = |value: &Value| value.as_i64().unwrap();
        let numbers = |value: &Value| value.as_array().unwrap().iter().map(number).collect::<Vec<i64>>();
        let template = Family::find("open_flamingo").unwrap().template;
        let tokens = |value: &Value| numbers(value).into_iter().map(|id| id as u32).collect::<Vec<u32>>();
        // From 1; 0: none.
        let number_of = |seen: MediaSeen| {
            assert!(seen.images == 1 || seen == MediaSeen::NOTHING);
            i64::from(seen.images * (seen.first + 1))
        };
        let (media, end) = (number(&idefics["image"]) as u32, number(&idefics["eos"]) as u32);
        for case in idefics["cases"].as_array().unwrap() {
            let found = MediaMask::PrecedingInDocument.of(&tokens(&case["ids"]), &[media], Some(end));
            let found: Vec<i64> = found.into_iter().map(|seen| number_of(seen) - 1).collect();
            assert_eq!(found, numbers(&case["last_image"]), "{case}");
        }
        let media = number(&open_flamingo["media"]) as u32;
        for case in open_flamingo["cases"].as_array().unwrap() {
            let found = template.media(&tokens(&case["ids"]), &[media], Some(end));
            let mut found: Vec<i64> = found.into_iter().map(number_of).collect();
            assert_eq!(found.pop(), Some(number(&case["generated"])), "what tokens after the prompt see");
            assert_eq!(found, numbers(&case["text_time"]), "{case}");
        }
    }

    /// The rule of `GatedCrossAttentionBlock` of open_flamingo 0.0.2 and Otter with `attend_previous` false, of which
    /// `tools/golden_v1.py` has a copy.
    #[test]
    fn text_sees_the_image_after_it_as_before_version_2() {
        const IMAGE: u32 = 9;
        let seen = |ids: &[u32]| -> Vec<u32> {
            let seen = MediaMask::Following.of(ids, &[IMAGE], None);
            seen.into_iter().map(|seen| seen.images * (seen.first + 1)).collect()
        };
        assert_eq!(seen(&[1, 2, 9, 3, 4, 9, 9, 5]), [1, 1, 1, 2, 2, 2, 3, 0]);
        assert_eq!(seen(&[9]), [1]);
        assert_eq!(seen(&[1, 2]), [0, 0], "without an image");
    }

    fn masked_as(model_type: &str, config: Value) -> Result<Template> {
        let fields = Fields::new("config.json".as_ref(), &config).unwrap();
        Family::find(model_type).unwrap().template.masked_as(&fields)
    }

    #[test]
    fn a_configuration_may_choose_where_its_family_does() {
        let of = |config| masked_as("open_flamingo", config).map(|found| (found.media_mask, found.answer_sees_media));
        assert_eq!(of(json!({})).unwrap(), (MediaMask::Preceding, true));
        assert_eq!(of(json!({"media_mask": "following"})).unwrap(), (MediaMask::Following, false));
        let both = json!({"media_mask": "preceding", "answer_sees_media": false});
        assert_eq!(of(both).unwrap(), (MediaMask::Preceding, false));
        let refused = [
            (
                "open_flamingo",
                json!({"media_mask": "next"}),
                "media_mask: expected \"preceding\" or \"following\", found \"next\"",
            ),
            ("open_flamingo", json!({"answer_sees_media": 1}), "answer_sees_media: expected true or false, found 1"),
            ("idefics", json!({"media_mask": "following"}), "media_mask: expected null, found \"following\""),
            ("idefics", json!({"answer_sees_media": true}), "answer_sees_media: expected null, found true"),
        ];
        for (family, config, message) in refused {
            assert_eq!(masked_as(family, config).unwrap_err().to_string(), format!("config.json: {message}"));
        }
    }

    /// What transformers' processor of Llama-3.2-Vision lets tokens see.
    #[test]
    fn groups_of_images_are_the_references() {
        let semantics: Value = serde_json::from_str(include_str!("../../tests/data/semantics/mllama.json")).unwrap();
        let numbers = |value: &Value| -> Vec<u32> {
            value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap() as u32).collect()
        };
        let image = semantics["image"].as_u64().unwrap() as u32;
        let cases = semantics["masks"].as_array().unwrap();
        assert!(cases.len() > 128);
        for case in cases {
            let found = MediaMask::PrecedingGroup.of(&numbers(&case["ids"]), &[image], None);
            let want = numbers(&case["first"]).into_iter().zip(numbers(&case["images"]));
            assert!(found.iter().map(|seen| (seen.first, seen.images)).eq(want), "{case}: {found:?}");
        }
    }
}

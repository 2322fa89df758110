//! How the prompts of a family are written, and which images each token sees: choices that all families make.

use crate::kv::MediaSeen;

/// How prompts are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Template {
    /// Stands for an image, or for a video.
    pub image: &'static str,
    /// Stands after each image, and before one that follows no other.
    pub fence: Option<&'static str>,
    /// Begins a prompt, where the tokenizer names no `bos_token`. None: the tokenizer adds what it adds by itself.
    pub begin: Option<&'static str>,
    /// Ends a document, and with it an answer, where the tokenizer names no `eos_token`. None: no document ends.
    pub document_end: Option<&'static str>,
    /// Ends a turn, and with it an answer.
    pub turn_end: &'static str,
    /// Whether tokenizers may lack the end of a turn: those of models without turns.
    pub turn_end_optional: bool,
    /// Whether the end of a turn is put between two texts that follow each other, if the tokenizer has it.
    pub turn_end_between_texts: bool,
    /// Whether spaces at both ends of a text are dropped.
    pub trims: bool,
    /// Which images a token sees.
    pub media_mask: MediaMask,
}

/// Which images each token of a prompt sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MediaMask {
    /// The last one before it, its own marker included (paper 2.3).
    Preceding,
    /// The last one before it in its document: none after an end of a document until the next image.
    PrecedingInDocument,
}

impl MediaMask {
    /// For each token the images (from 0) that it sees; `image` is the marker, `end` ends a document.
    pub(crate) fn of(self, ids: &[u32], image: u32, end: Option<u32>) -> Vec<MediaSeen> {
        let end = end.filter(|_| self == MediaMask::PrecedingInDocument);
        let mut images = 0;
        let mut current = MediaSeen::NOTHING;
        let mut mask = Vec::with_capacity(ids.len());
        for &id in ids {
            if id == image {
                current = MediaSeen::one(images);
                images += 1;
            }
            mask.push(current);
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
    use serde_json::Value;

    use super::*;

    /// Masks of transformers' IDEFICS processor, and text times of open_flamingo.
    #[test]
    fn the_media_mask_is_the_references() {
        let idefics: Value = serde_json::from_str(include_str!("../../tests/data/semantics/image_masks.json")).unwrap();
        let open_flamingo: Value =
            serde_json::from_str(include_str!("../../tests/data/semantics/text_times.json")).unwrap();
        let number = |value: &Value| value.as_i64().unwrap();
        let numbers = |value: &Value| value.as_array().unwrap().iter().map(number).collect::<Vec<i64>>();
        let tokens = |value: &Value| numbers(value).into_iter().map(|id| id as u32).collect::<Vec<u32>>();
        // From 1; 0: none.
        let number_of = |seen: MediaSeen| {
            assert!(seen.images == 1 || seen == MediaSeen::NOTHING);
            i64::from(seen.images * (seen.first + 1))
        };
        let (media, end) = (number(&idefics["image"]) as u32, number(&idefics["eos"]) as u32);
        for case in idefics["cases"].as_array().unwrap() {
            let found = MediaMask::PrecedingInDocument.of(&tokens(&case["ids"]), media, Some(end));
            let found: Vec<i64> = found.into_iter().map(|seen| number_of(seen) - 1).collect();
            assert_eq!(found, numbers(&case["last_image"]), "{case}");
        }
        let media = number(&open_flamingo["media"]) as u32;
        for case in open_flamingo["cases"].as_array().unwrap() {
            let found = MediaMask::Preceding.of(&tokens(&case["ids"]), media, Some(end));
            let found: Vec<i64> = found.into_iter().map(number_of).collect();
            assert_eq!(found, numbers(&case["text_time"]), "{case}");
            assert_eq!(found.last().copied(), Some(number(&case["generated"])), "what tokens after the prompt see");
        }
    }
}

//! RICES: the features of all images, from files if they are there, and the most similar examples of each.

use std::path::Path;

use rayon::prelude::*;

use super::data::{Dataset, Example, Medium};
use super::media::Media;
use super::plan::{Plan, Series};
use super::progress::{Observer, Progress};
use super::retrieval::{Features, Origin};
use super::shots::{Selection, Similar};
use crate::checkpoint::is_there;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::image::Image;

/// Images that are read and encoded together.
const TOGETHER: usize = 64;

/// Finds each example's most similar ones, for the sets of which a series wants them.
///
/// # Errors
/// A checkpoint without features; a device that has failed; files that cannot be written.
pub fn find(plan: &Plan, engine: &mut Engine, media: &Media, folder: &Path, observer: &Observer) -> Result<Similar> {
    let mut of_sets = vec![Vec::new(); plan.sets.len()];
    let mut model = None;
    for (number, found) in of_sets.iter_mut().enumerate() {
        let wanted = |series: &Series| series.set == number && series.selection == Selection::Rices;
        if !plan.series.iter().any(wanted) {
            continue;
        }
        let model = match &model {
            Some(model) => model,
            None => model.insert(fingerprint(engine)?),
        };
        let set = &plan.sets[number];
        let mut features = |name: &str, of: &Dataset, numbers: &[usize]| {
            let examples: Vec<&Example> = numbers.iter().map(|&place| &of.examples[place]).collect();
            features(&folder.join(format!("features-{name}-{number}.bin")), &examples, engine, media, model, observer)
        };
        let queries: Vec<usize> = (0..set.queries.examples.len()).collect();
        let of_support = features("support", &set.support, &set.all.numbers())?;
        let of_queries = features("query", &set.queries, &queries)?;
        *found = set.all.similar(&set.support, &set.queries.examples, &of_support, &of_queries, plan.count_max());
    }
    Ok(Similar { of_sets })
}

/// Features of examples, from the file or made anew; none of images that cannot be read.
fn features(
    path: &Path,
    examples: &[&Example],
    engine: &mut Engine,
    media: &Media,
    model: &str,
    observer: &Observer,
) -> Result<Features> {
    let names: Vec<String> = examples.iter().map(|example| name(example)).collect();
    let origin = Origin::new(format!("{model}{:?}", media.sampling()), names.iter().map(String::as_str));
    if is_there(path) {
        match Features::read(path, &origin) {
            Ok(features) => return Ok(features),
            Err(error) => observer(Progress::Note(&format!("{error}; features are computed anew"))),
        }
    }
    let mut rows = Vec::with_capacity(examples.len());
    let mut unread: Vec<Error> = Vec::new();
    for together in examples.chunks(TOGETHER) {
        let frames: Vec<_> = together.par_iter().map(|example| media.frames(&example.medium)).collect();
        let read: Vec<&[Image]> = frames.iter().flatten().map(|frames| &frames[..]).collect();
        let mut found = features_of_each(engine, &read)?.into_iter();
        for frames in frames {
            let row = frames.and_then(|_| found.next().expect("there is one for each that was read"));
            match row {
                Ok(row) => rows.push(Some(row)),
                Err(error) => {
                    // It is like no other.
                    rows.push(None);
                    unread.push(error);
                }
            }
        }
        observer(Progress::Features { done: rows.len(), total: examples.len() });
    }
    if let Some(first) = unread.first() {
        let (count, all) = (unread.len(), examples.len());
        observer(Progress::Note(&format!("{count} of {all} images or videos cannot be compared, first {first}")));
    }
    let Some(dimension) = rows.iter().flatten().map(Vec::len).next() else {
        let message = format!("expected at least 1 of {} images that can be read, found 0", examples.len());
        return Err(Error::argument(format!("features: {message}")));
    };
    let values = rows.into_iter().flat_map(|row| row.unwrap_or_else(|| vec![0.0; dimension])).collect();
    let features = Features::normalised(values, dimension)?;
    features.write(path, &origin)?;
    Ok(features)
}

/// Features of each image or video; of those whose numbers are none, that they are not finite.
fn features_of_each(engine: &mut Engine, media: &[&[Image]]) -> Result<Vec<Result<Vec<f32>>>> {
    match engine.features(media) {
        Ok(rows) => Ok(rows.into_iter().map(Ok).collect()),
        Err(error @ Error::FeaturesNotFinite { .. }) if media.len() == 1 => Ok(vec![Err(error)]),
        Err(Error::FeaturesNotFinite { .. }) => {
            let alone = media.iter().map(|frames| features_of_each(engine, &[frames]));
            Ok(alone.collect::<Result<Vec<_>>>()?.concat())
        }
        Err(error) => Err(error),
    }
}

/// What tells an example's image from others, and from itself before it was changed.
fn name(example: &Example) -> String {
    match &example.medium {
        Medium::Image(path) | Medium::Video(path) => {
            let found = path.metadata().ok().map(|found| (found.len(), found.modified().ok()));
            format!("{} {found:?}", path.display())
        }
        Medium::Drawn(_) => example.id.clone(),
    }
}

/// Tells models apart by what they see in one image: whatever changes features changes these.
fn fingerprint(engine: &mut Engine) -> Result<String> {
    const SIDE: u32 = 64;
    let pixel = |at: u32| [at * 7, at * 13 / SIDE, at * at].map(|level| level as u8);
    let image = Image::from_rgb(SIDE, SIDE, (0..SIDE * SIDE).flat_map(pixel).collect())?;
    let features = engine.features(&[&[image]])?;
    let bytes: Vec<u8> = features[0].iter().flat_map(|value| value.to_le_bytes()).collect();
    Ok(blake3::hash(&bytes).to_hex().to_string())
}

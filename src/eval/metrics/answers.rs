//! From what a model wrote to the answer in it, as OpenFlamingo 2.0.1 cuts it: a model that is not stopped goes on with
//! the next example of its prompt, whose first word gives it away.

/// A caption: what stands before the first "Output", without quotation marks (`eval/coco_metric.py`,
/// `eval/evaluate.py`).
pub fn caption(generation: &str) -> String {
    let (caption, _) = generation.split_once("Output").unwrap_or((generation, ""));
    caption.replace('"', "")
}

/// A short answer: what stands before the first "Question", "Answer" or "Short", and of that what stands before the
/// first comma with a space (`eval/vqa_metric.py`).
pub fn short_answer(generation: &str) -> &str {
    let end = ["Question", "Answer", "Short"].iter().filter_map(|word| generation.find(word)).min();
    let answer = &generation[..end.unwrap_or(generation.len())];
    answer.split_once(", ").map_or(answer, |(first, _)| first)
}

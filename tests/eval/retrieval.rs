//! The search for similar images: against numpy (`tools/golden_retrieval.py`), against a plain loop in doubles, and
//! with files that are not what they should be.

use std::path::Path;

use flamant::Error;
use flamant::eval::retrieval::{Features, Neighbour, Origin, nearest};
use serde_json::Value;

fn rows(matrix: &Value) -> Vec<Vec<f64>> {
    let numbers = |row: &Value| row.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect();
    matrix.as_array().unwrap().iter().map(numbers).collect()
}

fn features(rows: &[Vec<f64>]) -> Features {
    let values = rows.iter().flatten().map(|&value| value as f32).collect();
    Features::normalised(values, rows[0].len()).unwrap()
}

/// Numbers without a pattern.
fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn picked(found: &[Neighbour]) -> Vec<usize> {
    found.iter().map(|neighbour| neighbour.row).collect()
}

#[test]
fn the_rows_are_those_that_numpy_finds() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/retrieval/nearest.json");
    let fixture: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let (queries, support) = (features(&rows(&fixture["queries"])), features(&rows(&fixture["support"])));
    let (expected, similarities) = (rows(&fixture["rows"]), rows(&fixture["similarities"]));
    assert_eq!((queries.count(), support.count(), expected.len()), (70, 300, 70));
    let found = nearest(&queries, &support, 32, |_, _| true);
    for ((found, expected), similarities) in found.iter().zip(&expected).zip(&similarities) {
        assert_eq!(picked(found), expected.iter().map(|&row| row as usize).collect::<Vec<_>>());
        for (found, expected) in found.iter().zip(similarities) {
            assert!((f64::from(found.similarity) - expected).abs() < 1e-6);
        }
    }
}

#[test]
fn many_rows_give_what_a_plain_loop_gives_alone_and_together() {
    const DIMENSION: usize = 20;
    let support = Features::normalised(noise(9001 * DIMENSION, 1), DIMENSION).unwrap();
    let values = noise(67 * DIMENSION, 2);
    let queries = Features::normalised(values.clone(), DIMENSION).unwrap();
    // A third of the rows is not for a query, another one for each.
    let allowed = |query: usize, row: usize| !(query + row).is_multiple_of(3);
    let together = nearest(&queries, &support, 16, allowed);
    for (query, (unit, together)) in queries.values().chunks(DIMENSION).zip(&together).enumerate() {
        let dot = |row: &[f32]| row.iter().zip(unit).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
        let similarities: Vec<f64> = support.values().chunks(DIMENSION).map(dot).collect();
        let mut order: Vec<usize> = (0..support.count()).filter(|&row| allowed(query, row)).collect();
        order.sort_by(|&a, &b| similarities[b].total_cmp(&similarities[a]));
        assert_eq!(together.len(), 16);
        for (found, &expected) in together.iter().zip(&order) {
            // Rows closer to each other than single precision tells apart may change places.
            assert!((similarities[found.row] - similarities[expected]).abs() < 1e-6);
            assert!(allowed(query, found.row));
        }
        let alone = Features::normalised(values[query * DIMENSION..][..DIMENSION].to_vec(), DIMENSION).unwrap();
        assert_eq!(&nearest(&alone, &support, 16, |_, row| allowed(query, row))[0], together);
    }
}

#[test]
fn equals_come_in_their_order_and_no_more_than_there_are() {
    let support = features(&[vec![0.0, 2.0], vec![3.0, 0.0], vec![0.0, -1.0], vec![5.0, 0.0], vec![0.5, 0.0]]);
    let query = features(&[vec![1.0, 0.0]]);
    let find = |k, not: usize| picked(&nearest(&query, &support, k, |_, row| row != not)[0]);
    assert_eq!(find(3, 9), [1, 3, 4]);
    assert_eq!(find(2, 1), [3, 4]);
    // Orthogonal rows are equals, too, though the sign of their zeros differs.
    assert_eq!(find(100, 3), [1, 4, 0, 2]);
    assert!(find(0, 9).is_empty());
    assert!(nearest(&Features::normalised(vec![], 2).unwrap(), &support, 3, |_, _| true).is_empty());
    assert_eq!(nearest(&query, &Features::normalised(vec![], 2).unwrap(), 3, |_, _| true), [vec![]]);
}

#[test]
fn a_file_gives_back_what_was_written_and_to_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("features");
    let names = ["a", "bc", "d"];
    let origin = Origin::new("a model", names);
    let features = Features::normalised(noise(3 * 5, 3), 5).unwrap();
    features.write(&path, &origin).unwrap();
    assert_eq!(Features::read(&path, &origin).unwrap(), features);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside the file");

    let refused = |origin: &Origin| Features::read(&path, origin).unwrap_err().to_string();
    assert!(refused(&Origin::new("another", names)).ends_with("model: expected another, found a model"));
    for names in [&["a", "b", "cd"][..], &["d", "bc", "a"], &["a", "bc"], &["a", "bc", "d", ""]] {
        assert!(refused(&Origin::new("a model", names.iter().copied())).contains("images: expected"));
    }
}

#[test]
fn a_hostile_file_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("features");
    let origin = Origin::new("m", ["a", "b"]);
    Features::normalised(noise(2 * 4, 4), 4).unwrap().write(&path, &origin).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let refused = |bytes: &[u8], why: &str| {
        std::fs::write(&path, bytes).unwrap();
        let error = Features::read(&path, &origin).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Invalid { .. }) && text.contains(why) && !text.contains('\n'), "{text}");
    };
    let header = whole.len() - 2 * 4 * 4;
    for length in 0..whole.len() {
        refused(&whole[..length], if length < header { "first lines" } else { "rows: expected 32 bytes" });
    }
    refused(&[&whole[..], &[0]].concat(), "rows: expected 32 bytes, found 33");
    refused(&vec![b'x'; 1 << 20], "first lines");
    let replaced = |from: &str, to: &str| {
        let text = std::str::from_utf8(&whole[..header]).unwrap();
        assert!(text.contains(from));
        [text.replacen(from, to, 1).as_bytes(), &whole[header..]].concat()
    };
    refused(&replaced("features 1", "features 2"), "first lines");
    refused(&replaced("\"dimension\":4", "\"dimension\":0"), "dimension: expected 1 to");
    refused(&replaced("\"dimension\":4", "\"dimension\":18446744073709551615"), "dimension: expected 1 to");
    refused(&replaced("\"dimension\":4", "\"dimension\":-1"), "header: expected a line of JSON");
    refused(&replaced("\"count\":2", "\"count\":3"), "images: expected 2 images");
    for value in [f32::NAN, f32::INFINITY, 7.0] {
        let mut bytes = whole.clone();
        bytes[header + 16..header + 20].copy_from_slice(&value.to_le_bytes());
        refused(&bytes, "row 1: expected a row of length 1");
    }
    assert!(matches!(Features::read(folder.path(), &origin), Err(Error::File { .. })));
}

#[test]
fn features_that_are_no_numbers_are_refused_and_those_of_no_image_are_never_found() {
    for bad in [f32::NAN, f32::INFINITY] {
        let error = Features::normalised(vec![1.0, 0.0, bad, 0.0], 2).unwrap_err().to_string();
        assert!(error.starts_with("features of image 1"), "{error}");
    }
    let support = Features::normalised(vec![-1.0, 0.0, 0.0, 0.0, 0.0, -2.0], 2).unwrap();
    let queries = Features::normalised(vec![1.0, 1.0, 0.0, 0.0], 2).unwrap();
    let found = nearest(&queries, &support, 3, |_, _| true);
    assert_eq!(found[0].iter().map(|neighbour| neighbour.row).collect::<Vec<_>>(), [0, 2]);
    assert!(found[1].is_empty());
}

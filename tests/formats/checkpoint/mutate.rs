//! Thousands of small damages to good files: whatever comes of it is an error or a table inside the file, never a
//! panic.

use super::build::{archive, safetensors, state_dictionary, tensor, write};
use super::golden;
use flamant::checkpoint::{Checkpoint, Table, pickle, safetensors, torch};
use std::path::Path;

const ROUNDS: usize = 1500;

/// The generator of Marsaglia's xorshift family that fits into three lines.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }

    /// Damages a file in one to four places.
    fn damage(&mut self, good: &[u8]) -> Vec<u8> {
        let mut bytes = good.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            let value = [0, 1, 0x7F, 0x80, 0xFF, self.below(256) as u8][self.below(6)];
            match self.below(6) {
                0..=2 if !bytes.is_empty() => bytes[at] = value,
                3 => bytes.insert(at, value),
                4 => bytes.truncate(bytes.len() - self.below(bytes.len() / 8)),
                _ => {
                    let stop = (at + self.below(16)).min(bytes.len());
                    let copy = bytes[at..stop].to_vec();
                    let to = self.below(bytes.len() - copy.len() + 1);
                    bytes[to..to + copy.len()].copy_from_slice(&copy);
                }
            }
        }
        bytes
    }
}

fn inside(table: &Table, bytes: &[u8]) {
    for (name, layout) in table {
        let stop = layout.start.checked_add(layout.length).unwrap();
        assert!(stop <= bytes.len() || layout.strides.is_some(), "{name} ends at {stop} of {}", bytes.len());
    }
}

fn good_safetensors() -> Vec<u8> {
    let header = concat!(
        r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"#,
        r#""b":{"dtype":"BF16","shape":[3],"data_offsets":[16,22]}}"#
    );
    safetensors(header, 22)
}

const ARCHIVES: [&str; 5] = ["flat.pt", "views.pt", "training.pt", "torchscript.pt", "protocol4.pt"];

#[test]
fn no_part_of_a_file_is_a_file() {
    let good = good_safetensors();
    assert!(safetensors::parse_header(&good, Path::new("whole")).is_ok());
    assert!((0..good.len()).all(|stop| safetensors::parse_header(&good[..stop], Path::new("cut")).is_err()));
    for file in ARCHIVES {
        let good = std::fs::read(golden(file)).unwrap();
        assert!(torch::parse_archive(&good, Path::new("whole")).is_ok());
        assert!((0..good.len()).all(|stop| torch::parse_archive(&good[..stop], Path::new("cut")).is_err()), "{file}");
    }
}

#[test]
fn damaged_safetensors() {
    let (good, mut random) = (good_safetensors(), Random(1));
    for _ in 0..4 * ROUNDS {
        let bytes = random.damage(&good);
        if let Ok(table) = safetensors::parse_header(&bytes, Path::new("damaged.safetensors")) {
            inside(&table, &bytes);
        }
    }
}

#[test]
fn damaged_archives() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(2);
    for file in ARCHIVES {
        let good = std::fs::read(golden(file)).unwrap();
        let mut survivors = 0;
        for _ in 0..ROUNDS {
            let bytes = random.damage(&good);
            let Ok(table) = torch::parse_archive(&bytes, Path::new(file)) else { continue };
            inside(&table, &bytes);
            survivors += 1;
            // Gathering must stay inside too; a sample of the survivors goes through a file.
            if survivors % 8 == 0 {
                let checkpoint = Checkpoint::open(&write(folder.path(), file, &bytes)).unwrap();
                let _ = checkpoint
                    .names()
                    .filter_map(|name| checkpoint.tensor(name).ok())
                    .map(|tensor| tensor.bytes.len())
                    .sum::<usize>();
            }
        }
        assert!(survivors > 0, "{file}: no damage went unnoticed, so nothing was tested");
    }
}

#[test]
fn damaged_pickles() {
    let view = tensor("FloatStorage", "0", 6, 0, &[2, 3], &[1, 2]);
    let good = state_dictionary(&[("a", view.clone()), ("b", view)]);
    let mut random = Random(3);
    for _ in 0..4 * ROUNDS {
        let bytes = random.damage(&good);
        let _ = pickle::parse(&bytes, Path::new("damaged.pkl"));
        let whole = archive(&bytes, &[("0", 24)]);
        if let Ok(table) = torch::parse_archive(&whole, Path::new("damaged.pt")) {
            inside(&table, &whole);
        }
    }
}

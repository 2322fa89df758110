//! Products on every machine that this one can be: the bits of two plain loops, for weights in every format.

use super::*;
use crate::checkpoint::quantised::{Codes, Quantised};

/// Numbers in -1..1.
fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn codes(count: usize, seed: u32) -> Vec<u8> {
    noise(count, seed).into_iter().map(|x| (x * 128.0).floor() as i8 as u8).collect()
}

/// What the order of sums is.
fn sum_in_order(x: &[f32], w: &[f32]) -> f32 {
    let block = |(x, w): (&[f32], &[f32])| x.iter().zip(w).fold(0f32, |sum, (&x, &w)| x.mul_add(w, sum));
    x.chunks(256).zip(w.chunks(256)).map(block).reduce(|total, sum| total + sum).unwrap()
}

/// (rows of x, width), and the second half behind it where the weight is paired.
fn run(kind: Kind, x: &[&[f32]], weight: &Matrix, width: usize, paired: bool) -> Vec<f32> {
    run_by(false, kind, x, weight, width, paired)
}

fn run_by(pairs: bool, kind: Kind, x: &[&[f32]], weight: &Matrix, width: usize, paired: bool) -> Vec<f32> {
    let out = std::sync::Mutex::new(vec![f32::NAN; x.len() * width * 2]);
    let finish = |row: usize, columns: Range<usize>, first: &mut [f32], second: &mut [f32], _: &mut [f32]| {
        let mut out = out.lock().unwrap();
        for (half, values) in [first, second].into_iter().enumerate() {
            out[(half * x.len() + row) * width..][columns.clone()].copy_from_slice(values);
        }
    };
    let mut written = vec![0.0; x.len() * width];
    let product = Product { weight, width, paired, finish: &finish };
    let mut strips = Strips::default();
    match pairs {
        true => product.run_pairs(kind, x, &mut strips, &mut written),
        false => product.run(kind, x, &mut strips, &mut written),
    }
    let mut out = out.into_inner().unwrap();
    out.truncate(x.len() * width * if paired { 2 } else { 1 });
    out
}

/// On every machine: the bits of the order of sums, for so many rows and one by one.
fn assert_in_order(x: &[f32], w: &[f32], matrix: &Matrix, paired: bool) {
    let columns = matrix.columns;
    let width = w.len() / columns / if paired { 2 } else { 1 };
    let rows: Vec<&[f32]> = x.chunks_exact(columns).collect();
    for kind in Kind::all() {
        let found = run(kind, &rows, matrix, width, paired);
        for (half, w) in w.chunks_exact(width * columns).enumerate() {
            for (r, x) in rows.iter().enumerate() {
                for (c, w) in w.chunks_exact(columns).enumerate() {
                    let (found, want) = (found[(half * rows.len() + r) * width + c], sum_in_order(x, w));
                    assert_eq!(found.to_bits(), want.to_bits(), "{kind:?}: row {r} of {} column {c}", rows.len());
                }
            }
        }
    }
}

#[test]
fn products_have_the_order_of_sums_on_every_machine() {
    let shapes = [(1, 5, 3), (2, 16, 8), (7, 333, 21), (9, 64, 130), (3, 1000, 70), (40, 513, 55), (17, 256, 49)];
    for (rows, columns, width) in shapes.into_iter().chain((1..=40).map(|rows| (rows, 70, 11))) {
        let (x, w) = (noise(rows * columns, 1), noise(width * columns, 2));
        let (first, second) = w.split_at(width / 3 * columns);
        let parts = vec![(width / 3, Values::of_f32(first)), (width - width / 3, Values::of_f32(second))];
        assert_in_order(&x, &w, &Matrix { parts, columns }, false);
    }
}

#[test]
fn both_halves_of_a_paired_weight_are_finished_together() {
    for (rows, columns, width, parts) in [(1, 70, 50, [50, 50]), (11, 300, 20, [13, 27]), (9, 40, 60, [100, 20])] {
        let (x, w) = (noise(rows * columns, 1), noise(2 * width * columns, 2));
        let (first, second) = w.split_at(parts[0] * columns);
        let parts = vec![(parts[0], Values::of_f32(first)), (parts[1], Values::of_f32(second))];
        assert_in_order(&x, &w, &Matrix { parts, columns }, true);
    }
}

/// Work for several threads, cut by columns and by rows.
#[test]
fn threads_change_nothing() {
    for (rows, columns, width) in [(1, 1024, 130), (200, 300, 16)] {
        let (x, w) = (noise(rows * columns, 1), noise(width * columns, 2));
        let rows: Vec<&[f32]> = x.chunks_exact(columns).collect();
        let matrix = Matrix { parts: vec![(width, Values::of_f32(&w))], columns };
        let on = |threads| {
            let threads = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            threads.install(|| run(Kind::best(), &rows, &matrix, width, false))
        };
        let alone = on(1);
        assert!([2, 3, 16].into_iter().all(|threads| on(threads) == alone));
    }
}

#[test]
fn numbers_of_sixteen_bits_are_widened_exactly_at_any_alignment() {
    for (rows, columns, width) in [(1, 5, 3), (3, 34, 8), (9, 333, 21), (12, 64, 50)] {
        let x = noise(rows * columns, 1);
        let numbers = noise(width * columns, 2);
        let bytes = |each: fn(f32) -> [u8; 2]| -> Vec<u8> { numbers.iter().flat_map(|&number| each(number)).collect() };
        let f16 = bytes(|number| half::f16::from_f32(number * number * number * 1e-3).to_le_bytes());
        let bf16 = bytes(|number| half::bf16::from_f32(number).to_le_bytes());
        for (dtype, bytes) in [(Dtype::F16, &f16), (Dtype::Bf16, &bf16)] {
            let unaligned = [&[7], &bytes[..]].concat();
            let matrix = Matrix { parts: vec![(width, Values::Plain(dtype, &unaligned[1..]))], columns };
            assert_in_order(&x, &widened(&matrix, width), &matrix, false);
        }
    }
}

/// All rows as f32.
fn widened(matrix: &Matrix, rows: usize) -> Vec<f32> {
    let mut scratch = Vec::new();
    (0..rows).flat_map(|row| matrix.row(row, &mut scratch).to_vec()).collect()
}

/// Every f16 and bf16, infinities and NaN too, as a panel has it and as a row is widened.
#[test]
fn sixteen_bits_mean_what_they_mean() {
    let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let same = |found: f32, want: f32| found.to_bits() == want.to_bits() || (found.is_nan() && want.is_nan());
    for dtype in [Dtype::F16, Dtype::Bf16] {
        let meaning = |bits| match dtype {
            Dtype::F16 => half::f16::from_bits(bits).to_f32(),
            _ => half::bf16::from_bits(bits).to_f32(),
        };
        let (values, columns) = (Values::Plain(dtype, &bytes), 1 << 16);
        let row = widened(&Matrix { parts: vec![(1, values)], columns }, 1);
        assert!((0..=u16::MAX).zip(&row).all(|(bits, &found)| same(found, meaning(bits))));
        for kind in Kind::all() {
            let mut panel = vec![0.0; columns * PANEL];
            on!(kind, machine => pack(machine, &Source { values, columns, rows: 0..1 }, 0..columns, &mut panel));
            let found = panel.iter().step_by(PANEL);
            assert!((0..=u16::MAX).zip(found).all(|(bits, &found)| same(found, meaning(bits))), "{kind:?} {dtype}");
        }
    }
}

/// A matrix in few bits has the bits of the f32 matrix that it stands for: whole groups, groups that end within a word,
/// columns that end within a step, columns in another order.
#[test]
fn quantised_weights_are_the_matrices_that_they_stand_for() {
    let table: [f32; 16] = std::array::from_fn(|code| (code as f32 - 6.5).powi(3) / 500.0);
    let orders = |columns: usize| [None, Some((0..columns as u32).rev().collect::<Vec<u32>>())];
    for (rows, columns, width, group) in
        [(1, 512, 50, 128), (9, 384, 21, 32), (4, 330, 9, 330), (3, 300, 10, 6), (12, 320, 49, 64), (8, 44, 3, 44)]
    {
        let x = noise(rows * columns, 1);
        let count = width * columns / group;
        let scales: Vec<f32> = noise(count, 3).into_iter().map(|scale| scale * 0.02).collect();
        let zeros: Vec<u8> = codes(count, 4).into_iter().map(|zero| zero & 15).collect();
        let bytes: Vec<u8> = codes(width * columns, 2).into_iter().map(|code| code & !1).collect();
        let all = [
            (Codes::Int8, None),
            (Codes::Fp8, None),
            (Codes::Int4, None),
            (Codes::Int4, Some(&zeros[..])),
            (Codes::Table(&table), None),
        ];
        for ((codes, zeros), order) in all.into_iter().flat_map(|all| orders(columns).map(|order| (all, order))) {
            let bits = if matches!(codes, Codes::Int8 | Codes::Fp8) { 8 } else { 4 };
            let bytes = &bytes[..width * columns * bits / 8];
            let order = order.as_deref();
            let part = Quantised { rows: width, columns, codes, bytes, group, scales: &scales, zeros, order };
            part.check();
            let matrix = Matrix { parts: vec![(width, Values::Quantised(part))], columns };
            assert_in_order(&x, &widened(&matrix, width), &matrix, false);
        }
    }
}

/// What the order of sums is with both operands in bf16.
fn sum_of_pairs(x: &[f32], w: &[half::bf16]) -> f32 {
    let flushed = |x: f32| if x.is_subnormal() { 0f32.copysign(x) } else { x };
    let block = |(x, w): (&[f32], &[half::bf16])| {
        let pairs = x.as_chunks::<2>().0.iter().zip(w.as_chunks::<2>().0);
        pairs.fold(0f32, |sum, (x, w)| {
            let product = |sum: f32, i: usize| {
                let x = flushed(half::bf16::from_f32(x[i]).to_f32());
                flushed(x.mul_add(flushed(w[i].to_f32()), sum))
            };
            product(product(sum, 1), 0)
        })
    };
    x.chunks(256).zip(w.chunks(256)).map(block).reduce(|total, sum| total + sum).unwrap()
}

#[test]
fn products_in_bf16_have_the_order_of_sums_on_every_machine() {
    let shapes = [(1, 6, 3), (2, 16, 8), (7, 334, 21), (9, 64, 130), (3, 1000, 70), (40, 514, 55)];
    for (rows, columns, width) in shapes {
        let x = noise(rows * columns, 1);
        let w: Vec<half::bf16> = noise(width * columns, 2).into_iter().map(half::bf16::from_f32).collect();
        assert_pairs_in_order(&x, &w, columns);
    }
}

/// Random bits of all exponents, infinities and NaN among them: the instruction is its portable twin.
#[test]
fn products_in_bf16_agree_on_numbers_of_any_size() {
    for seed in 0..200 {
        let words = |count: usize, seed: u32| noise(count, seed).into_iter().zip(noise(count, seed + 7777));
        let bits = |(a, b): (f32, f32)| (((a + 1.0) * 32768.0) as u32) << 16 | ((b + 1.0) * 32767.0) as u32;
        let x: Vec<f32> = words(3 * 8, seed).map(|pair| f32::from_bits(bits(pair))).collect();
        let w: Vec<half::bf16> =
            words(50 * 8, seed + 500).map(|pair| half::bf16::from_bits((bits(pair) >> 16) as u16)).collect();
        assert_pairs_in_order(&x, &w, 8);
    }
}

fn assert_pairs_in_order(x: &[f32], w: &[half::bf16], columns: usize) {
    let width = w.len() / columns;
    let rows: Vec<&[f32]> = x.chunks_exact(columns).collect();
    let parts = vec![(width, Values::Plain(Dtype::Bf16, bytemuck::cast_slice(w)))];
    let words = Matrix { parts, columns }.pairs().unwrap();
    for kind in Kind::all() {
        let found = run_by(true, kind, &rows, &words, width, false);
        for (x, found) in rows.iter().zip(found.chunks_exact(width)) {
            for (w, found) in w.chunks_exact(columns).zip(found) {
                let want = sum_of_pairs(x, w);
                let same = found.to_bits() == want.to_bits() || found.is_nan() && want.is_nan();
                assert!(same, "{kind:?}: {found:e} is not {want:e}");
            }
        }
    }
}

//! Numbers that both storage types hold, the same for the same seed.

/// A well mixed number for each number (Steele et al. 2014, splitmix64).
fn mixed(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One seed of several numbers.
pub fn seed_of(parts: [u64; 4]) -> u64 {
    parts.iter().fold(7, |seed, &part| mixed(seed ^ part))
}

/// Near-normal numbers (four uniform ones added) of 8 significant bits. Those too small for f16 to hold exactly are 0.
pub fn fill(out: &mut Vec<f32>, count: usize, seed: u64, mean: f32, deviation: f32) {
    const SMALLEST: f32 = 1.0 / (1 << 17) as f32;
    let factor = deviation * 3f32.sqrt() / 65_536.0;
    out.extend((0..count as u64).map(|index| {
        let bits = mixed(seed.wrapping_add(index.wrapping_mul(0xd134_2543_de82_ef95)));
        let sum = (0..4).map(|part| (bits >> (16 * part)) as u16 as i32).sum::<i32>() - 2 * 65_535;
        let value = mean + sum as f32 * factor;
        let bits = value.to_bits();
        let rounded = f32::from_bits((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff_0000);
        if rounded.abs() < SMALLEST { 0.0 } else { rounded }
    }));
}

/// Levels of 8-bit pixels, the same for the same seed.
pub fn levels(count: usize, seed: u64) -> Vec<u8> {
    (0..count as u64).map(|index| mixed(seed.wrapping_add(index)) as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_both_storage_types() {
        let (mut squares, mut values) = (0.0, Vec::new());
        fill(&mut values, 2000, 5, 0.0, 1.0);
        for &value in &values {
            assert_eq!(value.to_bits() & 0xffff, 0, "bf16 has {value}");
            assert_eq!(half(value), value, "f16 has {value}");
            squares += f64::from(value).powi(2);
        }
        assert!((squares / values.len() as f64 - 1.0).abs() < 0.1);
    }

    /// Rounded to multiples of 2^-24, as the smallest numbers of f16 are; larger ones have 11 bits.
    fn half(value: f32) -> f32 {
        let unit = 2f32.powi((value.abs().log2().floor() as i32 - 10).max(-24));
        (value / unit).round() * unit
    }
}

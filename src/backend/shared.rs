//! Which sequences of a batch begin with the same pages: attention reads such pages once for all of them.

/// Sequences whose tables begin with the same pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shared {
    /// Their numbers in the batch.
    pub sequences: Vec<u32>,
    /// How many pages they have in common, from the first on; 0 for one that shares nothing.
    pub pages: usize,
}

/// Puts each sequence in one group. A group grows as long as that saves reading pages: `n` sequences with `p` pages in
/// common save `(n - 1) p`.
pub(super) fn shared_prefixes(tables: &[&[u32]]) -> Vec<Shared> {
    // Tables that begin alike stand together once they are sorted.
    let mut order: Vec<u32> = (0..tables.len() as u32).collect();
    order.sort_by_key(|&sequence| tables[sequence as usize]);
    let mut groups: Vec<Shared> = Vec::new();
    for sequence in order {
        let table = tables[sequence as usize];
        if let Some(group) = groups.last_mut() {
            let last = tables[*group.sequences.last().expect("a group has a sequence") as usize];
            let in_common = last.iter().zip(table).take_while(|(a, b)| a == b).count();
            let count = group.sequences.len();
            // One alone has all of its pages in common with itself.
            let pages = if count == 1 { in_common } else { in_common.min(group.pages) };
            if pages > 0 && count * pages >= (count - 1) * group.pages {
                group.sequences.push(sequence);
                group.pages = pages;
                continue;
            }
        }
        groups.push(Shared { sequences: vec![sequence], pages: 0 });
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_grouped_where_that_saves_reading() {
        let groups = shared_prefixes(&[&[1, 2, 3, 4], &[9], &[1, 2, 3, 5, 6], &[1, 7], &[1, 2, 3]]);
        let shared = |sequences: &[u32], pages| Shared { sequences: sequences.to_vec(), pages };
        // With the fourth, which has one page in common, three would save 3 pages instead of 6.
        assert_eq!(groups, [shared(&[4, 0, 2], 3), shared(&[3], 0), shared(&[1], 0)]);
        assert_eq!(shared_prefixes(&[&[1], &[2]]), [shared(&[0], 0), shared(&[1], 0)]);
        assert!(shared_prefixes(&[]).is_empty());
    }
}

//! Which sequences of a batch begin with the same pages: attention reads such pages once for all of them.

/// Sequences whose tables begin with the same pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shared {
    /// Their numbers in the batch.
    pub sequences: Vec<u32>,
    /// How many pages they have in common, from the first on; 0 for one that shares nothing.
    pub pages: usize,
}

/// Puts each sequence in one group, so that as many pages as possible need not be read: `n` sequences with `p` pages in
/// common save `(n - 1) p`.
pub(super) fn shared_prefixes(tables: &[&[u32]]) -> Vec<Shared> {
    // Tables that begin alike stand together once they are sorted; so does each group.
    let mut order: Vec<u32> = (0..tables.len() as u32).collect();
    order.sort_by_key(|&sequence| tables[sequence as usize]);
    let in_common = |pair: &[u32]| {
        let [a, b] = [pair[0], pair[1]].map(|sequence| tables[sequence as usize]);
        a.iter().zip(b).take_while(|(a, b)| a == b).count()
    };
    let in_common: Vec<usize> = order.windows(2).map(in_common).collect();

    // Of the first sequences, so many: the most pages that are saved, and the last group's first sequence and pages.
    let mut best = vec![(0, 0, 0)];
    for end in 1..=order.len() {
        let mut found = (best[end - 1].0, end - 1, 0);
        let mut pages = usize::MAX;
        for first in (0..end - 1).rev() {
            pages = pages.min(in_common[first]);
            if pages == 0 {
                break;
            }
            let saved = best[first].0 + (end - 1 - first) * pages;
            if saved > found.0 {
                found = (saved, first, pages);
            }
        }
        best.push(found);
    }
    let mut groups = Vec::new();
    let mut end = order.len();
    while end > 0 {
        let (_, first, pages) = best[end];
        groups.push(Shared { sequences: order[first..end].to_vec(), pages });
        end = first;
    }
    groups.reverse();
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
        // Few pages in common with the first do not keep the others from sharing more.
        let groups = shared_prefixes(&[&[1, 0], &[1, 2, 3, 4, 5], &[1, 2, 3, 4, 6], &[1, 2, 3, 4, 7]]);
        assert_eq!(groups, [shared(&[0], 0), shared(&[1, 2, 3], 4)]);
        assert!(shared_prefixes(&[]).is_empty());
    }
}

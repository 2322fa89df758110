//! Log-likelihoods of many choices behind one prompt, as a trie of their tokens: what choices have in common is read
//! once. A sequence is a stretch of the trie without forks; a choice's last token is never read, its likelihood stands
//! in the row before it.

use std::collections::HashMap;

use super::{Ending, Place};
use crate::engine::request::Choice;
use crate::engine::scheduler::{Sequence, Tokens};
use crate::executor::{RowAnswer, RowQuery, RowRequest, RowResult};
use crate::kv::PagePool;

/// The prompt, from which all choices go on.
const ROOT: usize = 0;

/// The beginning of some choices.
#[derive(Debug, Default)]
struct Node {
    /// Its last token; none of the root's.
    token: u32,
    /// Beginnings that are one token longer.
    next: Vec<usize>,
    /// Its log-likelihood, once that is known.
    likelihood: f64,
    /// Whether each of its tokens is the likeliest after those before it, once that is known.
    greedy: bool,
}

/// Choices that are being weighed.
pub struct Classifying {
    nodes: Vec<Node>,
    /// The choices, and the node each ends at.
    choices: Vec<(Choice, usize)>,
    /// For each sequence the nodes whose rows it gives.
    stretches: Vec<Stretch>,
    /// Tokens that are read: the least there is to do.
    tokens: usize,
}

#[derive(Debug)]
struct Stretch {
    nodes: Vec<usize>,
    /// Tokens of the first one.
    length: usize,
    /// How many rows have been taken.
    taken: usize,
}

impl Classifying {
    /// Choices and their tokens, at least one of each.
    pub fn new(choices: Vec<(String, Vec<u32>)>) -> Self {
        let mut nodes = vec![Node { greedy: true, ..Node::default() }];
        let mut found = HashMap::new();
        let mut place = |ids: &[u32]| {
            ids.iter().fold(ROOT, |node, &token| {
                *found.entry((node, token)).or_insert_with(|| {
                    let next = nodes.len();
                    nodes.push(Node { token, ..Node::default() });
                    nodes[node].next.push(next);
                    next
                })
            })
        };
        let choices: Vec<(Choice, usize)> = choices
            .into_iter()
            .map(|(text, ids)| {
                let end = place(&ids);
                (Choice { text, ids, sum: 0.0, mean: 0.0, greedy: false }, end)
            })
            .collect();
        let stretches = vec![Stretch { nodes: vec![ROOT], length: 0, taken: 0 }];
        let tokens = nodes.iter().skip(1).filter(|node| !node.next.is_empty()).count();
        Classifying { nodes, choices, stretches, tokens }
    }

    /// The likelihoods of the tokens that choices go on with, and the likeliest of all.
    pub fn want(&self, prompt: &Tokens, place: Place) -> RowQuery {
        let Stretch { nodes, length, .. } = &self.stretches[place.sequence];
        let node = nodes[place.position + 1 - prompt.ids.len() - length];
        let targets = self.nodes[node].next.iter().map(|&next| self.nodes[next].token).collect();
        RowQuery { request: RowRequest::Targets(targets), top: 1 }
    }

    /// Takes the next row of a sequence.
    pub fn take(&mut self, place: Place, found: RowAnswer) {
        let stretch = &mut self.stretches[place.sequence];
        let node = stretch.nodes[stretch.taken];
        stretch.taken += 1;
        let RowResult::Targets(logprobs) = found.result else { unreachable!("choices want likelihoods") };
        let likeliest = found.top[0].0;
        let next = self.nodes[node].next.clone();
        assert_eq!(next.len(), logprobs.len());
        for (next, logprob) in next.into_iter().zip(logprobs) {
            self.nodes[next].likelihood = self.nodes[node].likelihood + logprob;
            self.nodes[next].greedy = self.nodes[node].greedy && self.nodes[next].token == likeliest;
        }
    }

    /// Puts sequences that go on from finished ones in their place.
    pub fn settle(&mut self, prompt: &Tokens, sequences: &mut Vec<Sequence>, pool: &mut PagePool) -> Option<Ending> {
        let mut place = 0;
        while place < self.stretches.len() {
            let stretch = &self.stretches[place];
            if stretch.taken < stretch.nodes.len() {
                place += 1;
                continue;
            }
            // What follows is read before what stands before it: few sequences wait at a time.
            let stretch = self.stretches.remove(place);
            let mut sequence = sequences.remove(place);
            let end = *stretch.nodes.last().expect("a stretch has a node");
            let length = stretch.length + stretch.nodes.len();
            for first in self.nodes[end].next.clone().into_iter().filter(|&next| !self.nodes[next].next.is_empty()) {
                let nodes = self.stretch_from(first);
                let tokens: Vec<u32> = nodes.iter().map(|&node| self.nodes[node].token).collect();
                sequences.push(sequence.fork(prompt, &tokens, pool));
                self.stretches.push(Stretch { nodes, length, taken: 0 });
            }
            sequence.clear(pool);
        }
        if !sequences.is_empty() {
            return None;
        }
        let ended = std::mem::take(&mut self.choices).into_iter().map(|(choice, end)| {
            let Node { likelihood: sum, greedy, .. } = self.nodes[end];
            Choice { sum, mean: sum / choice.ids.len() as f64, greedy, ..choice }
        });
        Some(Ending::Classified { choices: ended.collect(), tokens: self.tokens })
    }

    /// The nodes from `first` on that are read in one go: up to a fork, or to where only last tokens follow.
    fn stretch_from(&self, first: usize) -> Vec<usize> {
        let mut nodes = vec![first];
        while let [next] = self.nodes[*nodes.last().expect("it has the first")].next[..]
            && !self.nodes[next].next.is_empty()
        {
            nodes.push(next);
        }
        nodes
    }
}

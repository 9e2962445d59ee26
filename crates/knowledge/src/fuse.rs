//! Two orders of passages to one (Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and
//! individual rank learning methods", 2009). Knows ranks alone: what scores of words and of vectors are worth cannot
//! be compared.

use crate::scored::Scored;
use std::collections::BTreeMap;

/// The paper's k: how much less the next rank counts.
const RANK_OFFSET: f32 = 60.0;

/// Where a passage stands, from 1, by words and by vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranks {
    pub words: Option<u32>,
    pub vectors: Option<u32>,
}

/// The passages of both lists, the best first.
pub(crate) fn fuse(words: &[Scored], vectors: &[Scored]) -> Vec<(Scored, Ranks)> {
    let mut ranks: BTreeMap<u32, Ranks> = BTreeMap::new();
    for (rank, scored) in (1..).zip(words) {
        ranks.entry(scored.id).or_default().words = Some(rank);
    }
    for (rank, scored) in (1..).zip(vectors) {
        ranks.entry(scored.id).or_default().vectors = Some(rank);
    }
    let share = |rank: Option<u32>| rank.map_or(0.0, |rank| 1.0 / (RANK_OFFSET + rank as f32));
    let fused =
        ranks.into_iter().map(|(id, ranks)| (Scored { score: share(ranks.words) + share(ranks.vectors), id }, ranks));
    let mut fused: Vec<_> = fused.collect();
    fused.sort_by(|(a, _), (b, _)| b.cmp(a));
    fused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_count_by_rank() {
        let list = |ids: &[u32]| ids.iter().map(|id| Scored { score: 0.0, id: *id }).collect::<Vec<_>>();
        for (words, vectors, expected) in [
            (&[1, 2, 3][..], &[3, 4][..], &[3, 1, 2, 4][..]),
            (&[5], &[4], &[4, 5]),
            (&[], &[9, 8], &[9, 8]),
            (&[7, 6], &[], &[7, 6]),
            (&[], &[], &[]),
        ] {
            let fused = fuse(&list(words), &list(vectors));
            let found: Vec<u32> = fused.iter().map(|(scored, _)| scored.id).collect();
            assert_eq!(found, expected, "{words:?} {vectors:?}");
        }
        let (best, ranks) = fuse(&list(&[1, 2, 3]), &list(&[3, 4]))[0];
        assert_eq!(ranks, Ranks { words: Some(3), vectors: Some(1) });
        assert!((best.score - (1.0 / 63.0 + 1.0 / 61.0)).abs() < 1e-7);
    }
}

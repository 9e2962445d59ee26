//! Which documents belong together: a forest in which each cluster's root is its first document, so that neither the
//! order of the pairs nor of the files decides anything.

/// Clusters of documents, 4 bytes each.
#[derive(Clone, Debug)]
pub struct Clusters {
    parents: Vec<u32>,
}

impl Clusters {
    /// So many documents, each alone.
    pub fn new(documents: u32) -> Self {
        Self { parents: (0..documents).collect() }
    }

    /// Puts two documents' clusters together.
    pub fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        // The smaller one is the root.
        self.parents[a.max(b) as usize] = a.min(b);
    }

    fn root(&mut self, mut document: u32) -> u32 {
        while self.parents[document as usize] != document {
            // Halves the way for the next one.
            let above = self.parents[self.parents[document as usize] as usize];
            self.parents[document as usize] = above;
            document = above;
        }
        document
    }

    /// The first document of this one's cluster: itself if it is to stay.
    pub fn first(&self, mut document: u32) -> u32 {
        while self.parents[document as usize] != document {
            document = self.parents[document as usize];
        }
        document
    }
}

//! A persistent hash map and a persistent vector: a copy costs one reference count, a change of a
//! copy a few microseconds.
//!
//! The control thread keeps changing its map while workers read the copies inside snapshots. The
//! map is a vector of shards, each an `Arc`; a change clones the one shard it touches (some tens
//! of entries) and the vector of pointers, and nothing at all while no copy is out. A lookup is
//! one pointer more than in a plain hash table, which is what tries with one node a few bits (the
//! maps of `im` and `rpds`) cannot offer.

use std::fmt;
use std::sync::Arc;

use hashbrown::HashTable;

use crate::addr::Addr;

/// A key of a [`CowMap`].
pub trait CowKey: Clone + Eq {
    /// A hash whose bits are good from both ends.
    fn hash(&self, seed: u64) -> u64;
}

/// The map. Cloning shares.
#[derive(Clone)]
pub struct CowMap<K, V> {
    shards: Arc<Vec<Arc<Shard<K, V>>>>,
    len: usize,
    seed: u64,
}

type Shard<K, V> = HashTable<(K, V)>;

/// A vector in chunks. Cloning shares.
#[derive(Clone, Debug)]
pub struct CowVec<T> {
    chunks: Arc<Vec<Arc<Vec<T>>>>,
}

/// Elements of a chunk.
const CHUNK: usize = 64;

/// Entries a shard, on average, above which the number of shards is multiplied.
const CROWDED: usize = 128;
/// By so much.
const GROWTH: usize = 8;
/// The number of shards stays below this, so that copying the pointers stays cheap.
const MAX_SHARDS: usize = 1 << 12;

// === impl CowKey ===

impl CowKey for Addr {
    fn hash(&self, seed: u64) -> u64 {
        Addr::hash(*self, seed)
    }
}

impl CowKey for u32 {
    fn hash(&self, seed: u64) -> u64 {
        Addr::from_v4_bits(*self).hash(seed)
    }
}

impl CowKey for (Addr, u8, u16) {
    fn hash(&self, seed: u64) -> u64 {
        self.0.hash(seed ^ (u64::from(self.1) << 16 | u64::from(self.2)))
    }
}

impl CowKey for (u8, u16) {
    fn hash(&self, seed: u64) -> u64 {
        (u32::from(self.0) << 16 | u32::from(self.1)).hash(seed)
    }
}

// === impl CowMap ===

impl<K, V> CowMap<K, V> {
    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter()).map(|(key, value)| (key, value))
    }
}

impl<K: CowKey, V: Clone> CowMap<K, V> {
    /// An empty map; `seed` goes into the hash of the keys.
    pub fn new(seed: u64) -> Self {
        Self { shards: Arc::new(vec![Arc::default()]), len: 0, seed }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no entries.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of a key.
    #[inline]
    pub fn get(&self, key: &K) -> Option<&V> {
        let hash = key.hash(self.seed);
        let shard = self.shards.get(shard_of(hash, self.shards.len()))?;
        shard.find(hash, |entry| entry.0 == *key).map(|entry| &entry.1)
    }

    /// Whether the key is there.
    #[inline]
    pub fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// Sets the value of a key, returns the old one.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.get_mut(&key) {
            Some(old) => Some(std::mem::replace(old, value)),
            None => {
                self.insert_new(key, value);
                None
            }
        }
    }

    /// The value of a key, made by `default` if it is not there.
    pub fn entry(&mut self, key: K, default: impl FnOnce() -> V) -> Option<&mut V> {
        if !self.contains(&key) {
            self.insert_new(key.clone(), default());
        }
        self.get_mut(&key)
    }

    /// The value of a key, for changing it.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        if !self.contains(key) {
            return None; // Without a clone of the shard.
        }
        let hash = key.hash(self.seed);
        self.shard_mut(hash)?.find_mut(hash, |entry| entry.0 == *key).map(|entry| &mut entry.1)
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        if !self.contains(key) {
            return None;
        }
        let hash = key.hash(self.seed);
        let found = self.shard_mut(hash)?.find_entry(hash, |entry| entry.0 == *key).ok()?;
        let ((_, value), _) = found.remove();
        self.len -= 1;
        Some(value)
    }

    fn insert_new(&mut self, key: K, value: V) {
        if self.len >= CROWDED * self.shards.len() && self.shards.len() < MAX_SHARDS {
            self.grow();
        }
        let (hash, seed) = (key.hash(self.seed), self.seed);
        if let Some(shard) = self.shard_mut(hash) {
            shard.insert_unique(hash, (key, value), |entry| entry.0.hash(seed));
            self.len += 1;
        }
    }

    fn shard_mut(&mut self, hash: u64) -> Option<&mut Shard<K, V>> {
        let shards = Arc::make_mut(&mut self.shards);
        let at = shard_of(hash, shards.len());
        shards.get_mut(at).map(Arc::make_mut)
    }

    fn grow(&mut self) {
        let count = self.shards.len() * GROWTH;
        let mut shards: Vec<Shard<K, V>> = (0..count).map(|_| Shard::default()).collect();
        let seed = self.seed;
        for (key, value) in self.shards.iter().flat_map(|shard| shard.iter()) {
            let hash = key.hash(seed);
            if let Some(shard) = shards.get_mut(shard_of(hash, count)) {
                shard.insert_unique(hash, (key.clone(), value.clone()), |entry| entry.0.hash(seed));
            }
        }
        self.shards = Arc::new(shards.into_iter().map(Arc::new).collect());
    }
}

impl<K: CowKey, V: Clone> Default for CowMap<K, V> {
    fn default() -> Self {
        Self::new(0)
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for CowMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

// === impl CowVec ===

impl<T: Clone> CowVec<T> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        let last = self.chunks.last().map_or(0, |chunk| chunk.len());
        self.chunks.len().saturating_sub(1) * CHUNK + last
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The element with this index.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&T> {
        self.chunks.get(index / CHUNK)?.get(index % CHUNK)
    }

    /// The element with this index, for changing it.
    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        let chunk = Arc::make_mut(&mut self.chunks).get_mut(index / CHUNK)?;
        Arc::make_mut(chunk).get_mut(index % CHUNK)
    }

    /// Appends an element.
    pub fn push(&mut self, value: T) {
        let chunks = Arc::make_mut(&mut self.chunks);
        match chunks.last_mut().filter(|chunk| chunk.len() < CHUNK) {
            Some(chunk) => Arc::make_mut(chunk).push(value),
            None => chunks.push(Arc::new(vec![value])),
        }
    }
}

impl<T> Default for CowVec<T> {
    fn default() -> Self {
        Self { chunks: Arc::default() }
    }
}

/// Bits 32 and up choose the shard. hashbrown takes the low bits for the place and the top seven
/// for its tag, so within a shard both still vary.
fn shard_of(hash: u64, shards: usize) -> usize {
    (hash >> 32) as usize & (shards - 1)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn a_copy_keeps_what_it_had() {
        let mut map = CowMap::new(1);
        for n in 0..10_000u32 {
            map.insert(n, n);
        }
        let copy = map.clone();
        for n in 0..5_000 {
            map.remove(&n);
            map.insert(n + 5_000, 0);
        }
        assert_eq!((map.len(), copy.len()), (5_000, 10_000));
        assert!((0..10_000).all(|n| copy.get(&n) == Some(&n)));
        assert!((0..5_000).all(|n| map.get(&n).is_none() && map.get(&(n + 5_000)) == Some(&0)));
    }

    #[test]
    fn a_change_of_a_copy_leaves_nearly_all_shards_shared() {
        let mut map = CowMap::new(1);
        for n in 0..100_000u32 {
            map.insert(n, ());
        }
        let copy = map.clone();
        map.insert(100_000, ());
        let differing =
            map.shards.iter().zip(copy.shards.iter()).filter(|(a, b)| !Arc::ptr_eq(a, b)).count();
        assert_eq!((map.shards.len(), differing), (4096, 1));
    }

    #[test]
    fn a_vector_keeps_its_elements_and_its_copies() {
        let mut vector = CowVec::default();
        for n in 0..200 {
            assert_eq!(vector.len(), n);
            vector.push(n);
        }
        let copy = vector.clone();
        *vector.get_mut(130).unwrap() = 0;
        vector.push(200);
        assert_eq!((copy.len(), vector.len()), (200, 201));
        assert!((0..200).all(|n| copy.get(n) == Some(&n)));
        assert_eq!(
            (vector.get(130), vector.get(200), vector.get(201)),
            (Some(&0), Some(&200), None)
        );
        let differing = vector
            .chunks
            .iter()
            .zip(copy.chunks.iter())
            .filter(|(a, b)| !Arc::ptr_eq(a, b))
            .count();
        assert_eq!(differing, 2);
    }

    proptest! {
        #[test]
        fn it_behaves_as_a_hash_map(ops in prop::collection::vec((0u32..600, any::<Option<u8>>()), 0..3000)) {
            let mut map = CowMap::new(3);
            let mut model = HashMap::new();
            for (key, value) in ops {
                match value {
                    Some(value) => prop_assert_eq!(map.insert(key, value), model.insert(key, value)),
                    None => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                }
                prop_assert_eq!(map.len(), model.len());
            }
            let all: HashMap<_, _> = map.iter().map(|(k, v)| (*k, *v)).collect();
            prop_assert_eq!(all, model);
        }
    }
}

//! A note that two edit while they are offline. Each has a copy of his own, and the store has what they have sent.

use anyhow::{Context, Result, anyhow, ensure};
use yrs::updates::decoder::Decode;
use yrs::updates::encoder::Encode;
use yrs::{Doc, GetString, ReadTxn, StateVector, Text, TextRef, Transact, Update};

use rejoin_client::{Bucket, Bytes, Client};

/// Someone's copy of the note.
struct Editor {
    doc: Doc,
    text: TextRef,
}

impl Editor {
    /// The number must be the editor's own, for good: of two edits with one number only one is kept.
    fn new(number: u64) -> Self {
        let doc = Doc::with_client_id(number);
        let text = doc.get_or_insert_text("note");
        Self { doc, text }
    }

    fn insert(&self, at: u32, typed: &str) {
        self.text.insert(&mut self.doc.transact_mut(), at, typed);
    }

    fn remove(&self, at: u32, length: u32) {
        self.text.remove_range(&mut self.doc.transact_mut(), at, length);
    }

    fn read(&self) -> String {
        self.text.get_string(&self.doc.transact())
    }

    /// Sends the whole copy, which a node can always apply: what it has already changes nothing.
    async fn send(&self, notes: &Bucket<Bytes>, key: &str) -> Result<()> {
        let update = self.doc.transact().encode_state_as_update_v1(&StateVector::default());
        notes.apply(key, update).w(3).await?;
        Ok(())
    }

    /// Asks for what the copy lacks, and adds it.
    async fn receive(&self, notes: &Bucket<Bytes>, key: &str) -> Result<()> {
        let seen = self.doc.transact().state_vector().encode_v1();
        let lacks = notes.query(key, seen).r(3).await?.context("the note was sent")?;
        let update = Update::decode_v1(&lacks).map_err(|why| anyhow!("that is no update: {why}"))?;
        self.doc.transact_mut().apply_update(update).map_err(|why| anyhow!("the update does not fit: {why}"))
    }
}

/// A note, in a bucket `notes` that merges with `plugins/document`.
pub(crate) async fn document(client: &Client, key: &str) -> Result<()> {
    let notes = client.bucket::<Bytes>("notes")?;
    let (ann, bob) = (Editor::new(1), Editor::new(2));
    ann.insert(0, "feed cat");
    ann.send(&notes, key).await?;
    bob.receive(&notes, key).await?;
    // Both are offline now, or on two sides of a cut.
    ann.insert(5, "the ");
    bob.remove(0, 4);
    bob.insert(0, "call");
    ensure!((ann.read(), bob.read()) == ("feed the cat".into(), "call cat".into()), "each sees what it has typed");
    // They come back at once, and nobody has asked what the other one did.
    let (one, two) = tokio::join!(ann.send(&notes, key), bob.send(&notes, key));
    one?;
    two?;
    ann.receive(&notes, key).await?;
    bob.receive(&notes, key).await?;
    println!("document: ann and bob edit a note offline, and both edits are in it: {:?}", ann.read());
    ensure!(ann.read() == "call the cat" && bob.read() == ann.read(), "both have the same: {:?}", bob.read());
    Ok(())
}

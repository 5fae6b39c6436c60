//! The files that a crash leaves.

use std::collections::BTreeMap;

use super::{Content, File, FileChange, FileId, Machine, NameChange, Pending};
use crate::{Random, crc};

/// The bytes that a disk writes whole or not at all.
pub const SECTOR: usize = 512;

/// The unsynced changes that survive a power cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Survival {
    /// None of them.
    Nothing,
    /// All of them: also what a process leaves that ends while the machine goes on.
    Everything,
    /// Those before some moment, in order; the one of that moment in part.
    UpToAMoment,
    /// In each block of so many bytes those before some moment, each block for itself: torn and reordered writes.
    Sectors(usize),
    /// Whole changes, each by chance.
    WholeChanges,
    /// As [`Survival::Sectors`], and one sector that was being written holds noise.
    Noise,
}

/// All files of a data directory, except those of the tree.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Image {
    /// By name, relative to the directory.
    pub files: BTreeMap<String, Content>,
}

impl Image {
    /// Makes the state file name another boot, as it will find itself after the machine was restarted.
    pub fn reboot(&mut self) {
        let Some(content) = self.files.get_mut("STATE") else { return };
        let text = String::from_utf8_lossy(content.written()).into_owned();
        let Some((_, state)) = text.split_once('\n') else { return };
        let Some((boot, rest)) = state.split_once('\n') else { return };
        if boot.starts_with("boot ") {
            *content = Content::new(sealed(&format!("boot another\n{rest}")));
        }
    }
}

/// The content of a small file of the data directory, behind the line that vouches for it.
#[must_use]
pub fn sealed(content: &str) -> Vec<u8> {
    format!("rejoin-file 1 {} {:08x}\n{content}", content.len(), crc(content.as_bytes())).into_bytes()
}

/// The result of a crash.
pub struct Crash {
    /// What is found.
    pub image: Image,
    /// The sector that holds noise now, with [`Survival::Noise`].
    pub noise: Option<Noise>,
}

/// A sector of noise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Noise {
    /// The file.
    pub name: String,
    /// The offset of the sector.
    pub start: usize,
    /// Whether it held synced bytes.
    pub spoilt: bool,
}

impl Machine {
    /// Cuts the power, or, with [`Survival::Everything`], ends all processes.
    #[must_use]
    pub fn crash(&self, survival: Survival, random: &mut Random) -> Crash {
        let (first, end) = (self.oldest(), self.clock + 1);
        let moment = first + random.below(end + 1 - first.min(end));
        let mut names = self.platter.clone();
        for NameChange { at, name, file } in &self.pending {
            let survives = match survival {
                Survival::Nothing => false,
                Survival::Everything => true,
                Survival::UpToAMoment => *at < moment,
                Survival::Sectors(_) | Survival::WholeChanges | Survival::Noise => random.one_in(2),
            };
            match file {
                Some(file) if survives => drop(names.insert(name.clone(), *file)),
                None if survives => drop(names.remove(name)),
                _ => {}
            }
        }
        let found = |(name, file): (String, FileId)| (name, self.files[file].found(survival, moment, random));
        let mut image = Image { files: names.clone().into_iter().map(found).collect() };
        let noise = if survival == Survival::Noise { self.spoil(&names, &mut image, random) } else { None };
        Crash { image, noise }
    }

    /// The first change that is not on the platter.
    fn oldest(&self) -> u64 {
        let files = self.files.iter().filter_map(|file| file.pending.first()).map(|pending| pending.at);
        files.chain(self.pending.iter().map(|naming| naming.at)).min().unwrap_or(self.clock)
    }

    /// Fills one sector that was being written with noise.
    fn spoil(&self, names: &BTreeMap<String, FileId>, image: &mut Image, random: &mut Random) -> Option<Noise> {
        let mut dirty = Vec::new();
        for (name, file) in names {
            let written = image.files[name].written().len();
            for sector in self.files[*file].dirty(SECTOR).into_iter().filter(|sector| sector * SECTOR < written) {
                dirty.push((name, *file, sector * SECTOR));
            }
        }
        if dirty.is_empty() {
            return None;
        }
        let (name, file, start) = dirty[random.index(dirty.len())];
        if let Some(content) = image.files.get_mut(name) {
            let bytes = &mut content.edit()[start..];
            let length = bytes.len().min(SECTOR);
            random.fill(&mut bytes[..length]);
        }
        let synced = self.files[file].platter.written();
        let spoilt = synced.iter().skip(start).take(SECTOR).any(|byte| *byte != 0);
        Some(Noise { name: name.clone(), start, spoilt })
    }
}

impl File {
    /// What is found of the file.
    fn found(&self, survival: Survival, moment: u64, random: &mut Random) -> Content {
        match survival {
            Survival::Nothing => self.platter.clone(),
            Survival::Everything => self.live.clone(),
            Survival::UpToAMoment => self.at(moment, random),
            Survival::Sectors(size) => self.torn(size, random),
            Survival::Noise => self.torn(SECTOR, random),
            Survival::WholeChanges => {
                let mut content = self.platter.clone();
                self.pending.iter().filter(|_| random.one_in(2)).for_each(|pending| pending.piece.apply(&mut content));
                content
            }
        }
    }

    /// The file as it was at a moment, with a part of the write of that moment.
    fn at(&self, moment: u64, random: &mut Random) -> Content {
        let mut content = self.platter.clone();
        for Pending { at, piece, .. } in &self.pending {
            match piece {
                piece if *at < moment => piece.apply(&mut content),
                FileChange::Write(offset, bytes) if *at == moment => {
                    // Whole sectors of it, counted from the file's beginning as the disk does.
                    let end = offset + random.index(bytes.len() + 1);
                    let end = (end - end % SECTOR).max(*offset);
                    content.write(&bytes[..end - offset], *offset);
                }
                _ => {}
            }
        }
        content
    }

    /// A mixture: every block has come a way of its own.
    fn torn(&self, size: usize, random: &mut Random) -> Content {
        let mut content = self.platter.clone();
        let mut lengths = vec![content.length()];
        lengths.extend(
            self.pending
                .iter()
                .filter_map(|pending| if let FileChange::Length(length) = pending.piece { Some(length) } else { None }),
        );
        lengths.push(self.live.length());
        for block in self.dirty(size) {
            let block = block * size..(block + 1) * size;
            let touching: Vec<_> = self.pending.iter().filter_map(|pending| pending.piece.within(&block)).collect();
            let arrived = random.index(touching.len() + 1);
            touching[..arrived].iter().for_each(|(offset, bytes)| content.write(bytes, *offset));
        }
        // A length that did not arrive takes what lay behind it along.
        content.set_length(lengths[random.index(lengths.len())]);
        content
    }

    /// The blocks that pending writes touch.
    fn dirty(&self, size: usize) -> Vec<usize> {
        let blocks = self.pending.iter().filter_map(|pending| match &pending.piece {
            FileChange::Write(offset, bytes) if !bytes.is_empty() => {
                Some(offset / size..(offset + bytes.len()).div_ceil(size))
            }
            _ => None,
        });
        let mut blocks: Vec<_> = blocks.flatten().collect();
        blocks.sort_unstable();
        blocks.dedup();
        blocks
    }
}

impl FileChange {
    /// The part of a write that lies within a block: where, and its bytes.
    fn within(&self, block: &std::ops::Range<usize>) -> Option<(usize, &[u8])> {
        let Self::Write(offset, bytes) = self else { return None };
        let (start, end) = (block.start.max(*offset), block.end.min(offset + bytes.len()));
        (start < end).then(|| (start, &bytes[start - offset..end - offset]))
    }
}

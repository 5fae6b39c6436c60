//! The stories of the ready-made merges, see [`Story`].

use crate::stories::Step::{Answer, Apply, Copy, Delete, Fold, Meet, Nothing, Restore, Shown, Update};
use crate::stories::Story;

/// Of `plugins/counter`.
pub const COUNTER: &[Story] = &[
    Story {
        about: "both sides count while apart, and each increment counts once",
        steps: &[
            Apply("east", "2"),
            Meet("east", "west"),
            Apply("east", "3"),
            Apply("west", "-1"),
            Apply("west", "10"),
            Meet("east", "west"),
            Shown("east", "14"),
            Meet("east", "west"),
            Fold("east"),
            Meet("east", "west"),
            Shown("west", "14"),
            Answer("west", "\"total\"", "14"),
        ],
    },
    Story {
        about: "an old disk neither brings an increment back nor loses one",
        steps: &[
            Apply("attic", "1"),
            Copy("attic"),
            Apply("attic", "5"),
            Meet("attic", "east"),
            Restore("attic"),
            Apply("attic", "100"),
            Meet("attic", "east"),
            Shown("east", "106"),
            Fold("attic"),
            Apply("attic", "-6"),
            Meet("attic", "east"),
            Shown("east", "100"),
        ],
    },
    Story {
        about: "a deleted counter begins at nothing, and what the delete has not seen is kept",
        steps: &[
            Apply("east", "7"),
            Delete("east"),
            Nothing("east"),
            Apply("east", "2"),
            Shown("east", "2"),
            Meet("east", "west"),
            Apply("west", "1"),
            Delete("east"),
            Apply("east", "5"),
            Meet("east", "west"),
            Shown("east", "6"),
            Shown("west", "6"),
        ],
    },
    Story {
        about: "three replicas fold different siblings and agree",
        steps: &[
            Apply("east", "1"),
            Apply("west", "2"),
            Apply("south", "4"),
            Meet("east", "west"),
            Meet("south", "west"),
            Fold("east"),
            Fold("west"),
            Apply("west", "8"),
            Meet("east", "south"),
            Meet("east", "west"),
            Meet("south", "west"),
            Shown("east", "15"),
            Shown("south", "15"),
        ],
    },
];

/// Of `plugins/set`.
pub const SET: &[Story] = &[
    Story {
        about: "both sides add to a set while apart: the union",
        steps: &[
            Apply("east", r#"{"add":["apples"]}"#),
            Apply("west", r#"{"add":["pears","apples"]}"#),
            Meet("east", "west"),
            Shown("east", r#"["apples","pears"]"#),
            Answer("west", "\"count\"", "2"),
            Answer("west", r#"{"has":"plums"}"#, "false"),
        ],
    },
    Story {
        about: "an add wins over a concurrent remove, and the removal of what was seen holds",
        steps: &[
            Apply("east", r#"{"add":["apples","bread"]}"#),
            Meet("east", "west"),
            Apply("east", r#"{"remove":["apples","bread"]}"#),
            Apply("west", r#"{"add":["apples"]}"#),
            Meet("east", "west"),
            Shown("east", r#"["apples"]"#),
            Shown("west", r#"["apples"]"#),
        ],
    },
    Story {
        about: "an element that was removed can be added again, and is then removed again",
        steps: &[
            Apply("east", r#"{"add":["apples"]}"#),
            Meet("east", "west"),
            Copy("west"),
            Apply("east", r#"{"remove":["apples"]}"#),
            Apply("east", r#"{"add":["apples"]}"#),
            Meet("east", "west"),
            Shown("west", r#"["apples"]"#),
            Apply("west", r#"{"remove":["apples"]}"#),
            Meet("east", "west"),
            Shown("east", "[]"),
            Restore("west"),
            Apply("west", r#"{"add":["plums"]}"#),
            Meet("west", "east"),
            Shown("east", r#"["plums"]"#),
            Fold("west"),
            Meet("west", "east"),
            Shown("west", r#"["plums"]"#),
        ],
    },
    Story {
        about: "a replica that has heard of a removal from a third one does not bring the element back",
        steps: &[
            Apply("east", r#"{"add":["apples"]}"#),
            Meet("east", "west"),
            Meet("west", "south"),
            Apply("south", r#"{"remove":["apples"]}"#),
            Meet("south", "east"),
            Fold("east"),
            Apply("west", r#"{"add":["pears"]}"#),
            Meet("west", "east"),
            Fold("west"),
            Meet("west", "south"),
            Shown("south", r#"["pears"]"#),
            Shown("east", r#"["pears"]"#),
        ],
    },
    Story {
        about: "deleting the key keeps what the delete has not seen",
        steps: &[
            Apply("east", r#"{"add":["apples"]}"#),
            Meet("east", "west"),
            Apply("west", r#"{"add":["pears"],"remove":["apples"]}"#),
            Delete("east"),
            Meet("east", "west"),
            Shown("east", r#"["pears"]"#),
        ],
    },
];

/// Of `plugins/metadata`.
pub const METADATA: &[Story] = &[
    Story {
        about: "different fields do not compete",
        steps: &[
            Apply("east", r#"{"set":{"title":"Minutes","pages":3}}"#),
            Meet("east", "west"),
            Apply("east", r#"{"set":{"title":"Minutes of May"}}"#),
            Apply("west", r#"{"set":{"tags":["a","b"]},"remove":["pages"]}"#),
            Meet("east", "west"),
            Shown("east", r#"{"tags":["a","b"],"title":"Minutes of May"}"#),
            Shown("west", r#"{"tags":["a","b"],"title":"Minutes of May"}"#),
        ],
    },
    Story {
        about: "both of two concurrent changes of a field are kept until one replaces them",
        steps: &[
            Apply("east", r#"{"set":{"title":"one"}}"#),
            Apply("west", r#"{"set":{"title":{"de":"zwei"}}}"#),
            Meet("east", "west"),
            Answer("east", "\"fields\"", r#"{"title":{"concurrent":[{"de":"zwei"},"one"]}}"#),
            Answer("west", r#"{"get":"title"}"#, r#"[{"de":"zwei"},"one"]"#),
            Fold("west"),
            Apply("west", r#"{"set":{"title":"both"}}"#),
            Meet("east", "west"),
            Shown("east", r#"{"title":"both"}"#),
        ],
    },
    Story {
        about: "a change wins over a concurrent removal, and an old disk brings nothing back",
        steps: &[
            Apply("east", r#"{"set":{"draft":true,"title":"x"}}"#),
            Meet("east", "attic"),
            Copy("attic"),
            Apply("attic", r#"{"set":{"draft":false}}"#),
            Apply("east", r#"{"remove":["draft","title"]}"#),
            Meet("east", "attic"),
            Shown("east", r#"{"draft":false}"#),
            Apply("east", r#"{"remove":["draft"]}"#),
            Meet("east", "attic"),
            Restore("attic"),
            Apply("attic", r#"{"set":{"pages":1}}"#),
            Meet("east", "attic"),
            Shown("attic", r#"{"pages":1}"#),
        ],
    },
];

/// Of `plugins/leaderboard`.
pub const LEADERBOARD: &[Story] = &[
    Story {
        about: "the best score of each player, and of the players the best",
        steps: &[
            Apply("east", r#"{"player":"ann","score":90,"top":2}"#),
            Meet("east", "west"),
            Apply("east", r#"{"player":"bob","score":120}"#),
            Apply("west", r#"{"player":"ann","score":70}"#),
            Apply("west", r#"{"player":"cy","score":95}"#),
            Meet("east", "west"),
            Shown("east", r#"[{"player":"bob","score":120},{"player":"cy","score":95}]"#),
            Answer("west", r#"{"rank":"cy"}"#, "2"),
            Answer("west", r#"{"rank":"ann"}"#, "null"),
            Answer("west", r#"{"best":1}"#, r#"[{"player":"bob","score":120}]"#),
        ],
    },
    Story {
        about: "a player who was pushed out on one side comes back with a better score on the other",
        steps: &[
            Apply("east", r#"{"player":"ann","score":1,"top":1}"#),
            Meet("east", "west"),
            Apply("east", r#"{"player":"bob","score":2}"#),
            Apply("west", r#"{"player":"ann","score":3}"#),
            Fold("east"),
            Meet("east", "west"),
            Fold("west"),
            Meet("east", "west"),
            Shown("east", r#"[{"player":"ann","score":3}]"#),
        ],
    },
    Story {
        about: "of two boards that were made apart the smaller size holds, and ties rank by name",
        steps: &[
            Apply("east", r#"{"player":"dee","score":5,"top":3}"#),
            Apply("east", r#"{"player":"ann","score":5}"#),
            Apply("west", r#"{"player":"cy","score":5,"top":2}"#),
            Meet("east", "west"),
            Shown("west", r#"[{"player":"ann","score":5},{"player":"cy","score":5}]"#),
        ],
    },
];

/// Updates of Yjs to the text `note`. Client 3 types `feed cat`.
const NOTE: &[u8] = b"\x01\x01\x03\x00\x04\x01\x04note\x08feed cat\x00";
/// Client 1 has seen that, and types `the ` before `cat`.
const THE: &[u8] = b"\x01\x01\x01\x00\xc4\x03\x04\x03\x05\x04the \x00";
/// Client 2 has seen the first, and replaces `feed` by `call`.
const CALL: &[u8] = b"\x01\x01\x02\x00\xc4\x03\x03\x03\x04\x04call\x01\x03\x01\x00\x04";
/// Client 4 has seen the first, and types ` and dog` behind it.
const DOG: &[u8] = b"\x01\x01\x04\x00\x84\x03\x07\x08 and dog\x00";
/// Clients 1 and 2 have seen the first, and each types a word behind it.
const NOW: &[u8] = b"\x01\x01\x01\x00\x84\x03\x07\x04 now\x00";
const LATER: &[u8] = b"\x01\x01\x02\x00\x84\x03\x07\x06 later\x00";

/// Of `plugins/document`.
pub const DOCUMENT: &[Story] = &[
    Story {
        about: "two edit a text on both sides of a cut, and both edits are in it",
        steps: &[
            Update("east", NOTE),
            Meet("east", "west"),
            Update("east", THE),
            Update("west", CALL),
            Shown("east", r#"{"note":"feed the cat"}"#),
            Shown("west", r#"{"note":"call cat"}"#),
            Meet("east", "west"),
            Shown("east", r#"{"note":"call the cat"}"#),
            Fold("west"),
            Meet("east", "west"),
            Shown("east", r#"{"note":"call the cat"}"#),
            Shown("west", r#"{"note":"call the cat"}"#),
        ],
    },
    Story {
        about: "what two type at one place stands side by side, in the same order everywhere",
        steps: &[
            Update("east", NOTE),
            Meet("east", "west"),
            Update("west", LATER),
            Update("east", NOW),
            Meet("east", "west"),
            Shown("east", r#"{"note":"feed cat now later"}"#),
            Shown("west", r#"{"note":"feed cat now later"}"#),
        ],
    },
    Story {
        about: "an old disk brings nothing back that was deleted, and an edit of it stays",
        steps: &[
            Update("attic", NOTE),
            Copy("attic"),
            Update("attic", CALL),
            Meet("attic", "east"),
            Restore("attic"),
            Update("attic", THE),
            Shown("attic", r#"{"note":"feed the cat"}"#),
            Meet("attic", "east"),
            Shown("attic", r#"{"note":"call the cat"}"#),
            Fold("east"),
            Meet("attic", "east"),
            Shown("east", r#"{"note":"call the cat"}"#),
        ],
    },
    Story {
        about: "three replicas fold different siblings and agree, and an update that comes twice changes nothing",
        steps: &[
            Update("east", NOTE),
            Meet("east", "west"),
            Meet("east", "south"),
            Update("east", THE),
            Update("west", CALL),
            Update("south", DOG),
            Meet("east", "west"),
            Fold("east"),
            Meet("south", "west"),
            Fold("west"),
            Update("west", THE),
            Meet("east", "west"),
            Meet("south", "west"),
            Meet("south", "east"),
            Shown("east", r#"{"note":"call the cat and dog"}"#),
            Shown("south", r#"{"note":"call the cat and dog"}"#),
            Shown("west", r#"{"note":"call the cat and dog"}"#),
        ],
    },
    Story {
        about: "a deleted document begins at nothing, and what the delete has not seen is kept",
        steps: &[
            Update("east", NOTE),
            Meet("east", "west"),
            Update("west", THE),
            Delete("east"),
            Nothing("east"),
            Meet("east", "west"),
            Shown("east", r#"{"note":"feed the cat"}"#),
            Shown("west", r#"{"note":"feed the cat"}"#),
        ],
    },
];

//! Every rule of the core broken, one at a time: the test that is named for it must fail.
//!
//! The tests are those of `host/core/tests/machines`, compiled against the twin. They also run here with no rule
//! broken: the twin is then the core, source for source, so `cargo test --workspace` does not compile and run them
//! against the core once more. `cargo test -p rejoin-core --test machines` does.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

#[path = "../../../host/core/tests/machines/access.rs"]
mod access;
#[path = "../../../host/core/tests/machines/asking.rs"]
mod asking;
#[path = "../../../host/core/tests/machines/batches.rs"]
mod batches;
#[path = "../../../host/core/tests/machines/bounds.rs"]
mod bounds;
#[path = "../../../host/core/tests/machines/busy.rs"]
mod busy;
#[path = "../../../host/core/tests/machines/comparisons.rs"]
mod comparisons;
#[path = "../../../host/core/tests/machines/contacts.rs"]
mod contacts;
#[path = "../../../host/core/tests/machines/control.rs"]
mod control;
#[path = "../../../host/core/tests/machines/copies.rs"]
mod copies;
#[path = "../../../host/core/tests/machines/deletions.rs"]
mod deletions;
#[path = "../../../host/core/tests/machines/exchange.rs"]
mod exchange;
#[path = "../../../host/core/tests/machines/fair.rs"]
mod fair;
#[path = "../../../host/core/tests/machines/faults.rs"]
mod faults;
#[path = "../../../host/core/tests/machines/folds.rs"]
mod folds;
#[path = "../../../host/core/tests/machines/former_owners.rs"]
mod former_owners;
#[path = "../../../host/core/tests/machines/forwards.rs"]
mod forwards;
#[path = "../../../host/core/tests/machines/gaps.rs"]
mod gaps;
#[path = "../../../host/core/tests/machines/handoff.rs"]
mod handoff;
#[path = "../../../host/core/tests/machines/joins.rs"]
mod joins;
#[path = "../../../host/core/tests/machines/layouts.rs"]
mod layouts;
#[path = "../../../host/core/tests/machines/limits.rs"]
mod limits;
#[path = "../../../host/core/tests/machines/links.rs"]
mod links;
#[path = "../../../host/core/tests/machines/members.rs"]
mod members;
#[path = "../../../host/core/tests/machines/operations.rs"]
mod operations;
#[path = "../../../host/core/tests/machines/pace.rs"]
mod pace;
#[path = "../../../host/core/tests/machines/plans.rs"]
mod plans;
#[path = "../../../host/core/tests/machines/quotas.rs"]
mod quotas;
#[path = "../../../host/core/tests/machines/reads.rs"]
mod reads;
#[path = "../../../host/core/tests/machines/receipts.rs"]
mod receipts;
#[path = "../../../host/core/tests/machines/recorded.rs"]
mod recorded;
#[path = "../../../host/core/tests/machines/replicas.rs"]
mod replicas;
#[path = "../../../host/core/tests/machines/retries.rs"]
mod retries;
#[path = "../../../host/core/tests/machines/ring.rs"]
mod ring;
#[path = "../../../host/core/tests/machines/ring_splits.rs"]
mod ring_splits;
#[path = "../../../host/core/tests/machines/scenarios.rs"]
mod scenarios;
#[path = "../../../host/core/tests/machines/signers.rs"]
mod signers;
#[path = "../../../host/core/tests/machines/sloppy.rs"]
mod sloppy;
#[path = "../../../host/core/tests/machines/splits.rs"]
mod splits;
#[path = "../../../host/core/tests/support/mod.rs"]
mod support;
#[path = "../../../host/core/tests/machines/tenures.rs"]
mod tenures;
#[path = "../../../host/core/tests/machines/transcripts.rs"]
mod transcripts;
#[path = "../../../host/core/tests/machines/trees.rs"]
mod trees;
#[path = "../../../host/core/tests/machines/trials.rs"]
mod trials;
#[path = "../../../host/core/tests/machines/undos.rs"]
mod undos;
#[path = "../../../host/core/tests/machines/validation.rs"]
mod validation;
#[path = "../../../host/core/tests/machines/views.rs"]
mod views;
#[path = "../../../host/core/tests/machines/writes.rs"]
mod writes;
#[path = "../../../host/core/tests/machines/zones.rs"]
mod zones;

use std::panic::catch_unwind;

use rejoin_core::mutants::{Rule, without};

/// The test that fails when a rule is broken.
fn catcher(rule: Rule) -> fn() {
    match rule {
        Rule::HoldersSpareNobody => asking::where_a_holder_cannot_be_reached_all_are_asked,
        Rule::LateReadsAreHedged => asking::a_read_whose_owner_is_late_asks_the_others,
        Rule::FailedReadsAskTheOthers => asking::a_read_whose_owner_fails_asks_the_others_at_once,
        Rule::SomeReadsRepairAll => asking::a_share_of_reads_repairs_owners_that_no_read_needs,
        Rule::SameIsSaidOfOneCopy => asking::an_answer_about_another_copy_counts_for_nothing,
        Rule::EqualCopiesHaveEqualDigests | Rule::DifferencesAreRepairedEverywhere => {
            asking::a_copy_that_differs_is_sent_and_all_owners_are_repaired
        }
        Rule::EveryOwnerConfirms => handoff::an_object_is_kept_until_every_owner_has_confirmed_it,
        Rule::ChangedObjectsAreNotDropped => handoff::an_object_that_has_changed_since_it_was_offered_is_kept,
        Rule::ConfirmsAreOfOneVersion => handoff::a_confirmation_of_another_version_is_void,
        Rule::DropsEndATenure => handoff::a_fallback_that_has_dropped_an_object_mints_as_a_new_actor,
        Rule::HoldingsEndEmpty => handoff::what_cannot_be_read_stays_held_until_it_can_be,
        Rule::SlowGetsAreForwardedAgain => {
            forwards::a_read_that_was_forwarded_to_a_slow_owner_is_forwarded_to_the_next_one_too
        }
        Rule::FoldsLeaveReceipts => receipts::a_fold_and_its_receipt_are_one_record,
        Rule::ReceiptsAreBounded => receipts::receipts_take_no_more_than_they_may,
        Rule::UndosRestoreWhatWasAccepted => receipts::an_undo_restores_what_was_accepted_and_nothing_else,
        Rule::WrongClocksEndNoReceipts => receipts::a_clock_that_has_jumped_ends_no_receipts,
        Rule::UndosFindTheirFold => receipts::an_undone_fold_has_its_inputs_again_unless_it_was_written_over,
        Rule::UndosRestoreWhatIsLive => undos::an_undo_restores_what_is_left_of_a_fold,
        Rule::UndosMeetEveryWrite => undos::an_undo_finds_what_was_written_while_its_coordinator_was_away,
        Rule::StoppedPluginsFoldNothing => folds::what_a_plugin_has_merged_that_was_stopped_meanwhile_is_not_stored,
        Rule::RefusalsGoToTheNextOwner => forwards::what_an_owner_refuses_that_is_starting_goes_to_the_next_one,
        Rule::MissingZonesComeFirst => {
            zones::an_owner_that_refuses_or_is_late_is_replaced_by_a_node_of_the_zone_that_is_missing
        }
        Rule::FormerOwnersHold => former_owners::a_node_that_is_no_owner_any_more_holds_what_it_has_and_hands_it_over,
        Rule::StartsMarkHoldings => {
            former_owners::a_node_that_became_a_former_owner_while_it_was_down_holds_what_it_has_from_its_start_on
        }
        Rule::ChangesOfOwnersTouchHoldings => {
            former_owners::a_walk_that_has_gone_past_what_is_held_now_does_not_end_the_holding
        }
        Rule::HoldingsArePassedOn => sloppy::what_a_fallback_holds_is_known_to_nodes_that_it_does_not_reach,
        Rule::LateNodesAreRelieved => {
            sloppy::a_late_owner_is_relieved_by_a_fallback_in_time_and_gets_the_write_all_the_same
        }
        Rule::FallbacksAreNoOwners => sloppy::a_fallback_counts_towards_w_and_not_towards_pw,
        Rule::EmptyFallbacksDoNotCount => sloppy::a_fallback_that_has_nothing_does_not_count_towards_r,
        Rule::NotFoundNeedsTheFallbacks => sloppy::nothing_is_not_found_before_the_fallbacks_have_been_asked,
        Rule::RepairsMakeNoFallbackCopies => sloppy::read_repair_makes_no_copy_at_a_fallback,
        Rule::StrictBucketsUseNoFallbacks => {
            sloppy::a_strict_bucket_uses_no_fallback_and_answers_before_anything_is_minted
        }
        Rule::OwnPausesAreNotCounted => members::a_node_that_stood_still_suspects_nobody,
        Rule::LearntRecordsArePassedOn => control::what_a_node_learns_reaches_those_that_the_changer_does_not,
        Rule::BusyNodesAreAskedAgain => busy::a_write_outlives_owners_that_are_busy_for_a_moment,
        Rule::FullWaitsAreTold => batches::a_write_that_finds_no_room_to_wait_for_the_disk_waits_for_it_later,
        Rule::UnsentMessagesAreTold => contacts::what_could_not_be_sent_is_not_waited_for,
        Rule::SuspectsStayOwners => contacts::a_node_that_is_down_stays_an_owner_and_counts,
        Rule::ProbesFeedSuspicion => members::probes_make_a_suspect_of_a_node_that_only_this_one_cannot_reach,
        Rule::RequestsFeedSuspicion => members::requests_without_answers_make_a_suspect_of_a_node_that_answers_probes,
        Rule::LossEndsTenures => scenarios::an_acknowledged_write_survives_its_coordinators_crash_before_its_own_fsync,
        Rule::DamageEndsATenure => tenures::a_copy_that_cannot_be_read_ends_the_tenure_once,
        Rule::EndsAreOwed => tenures::an_end_that_a_full_or_busy_disk_did_not_take_is_written_when_it_can_be,
        Rule::ObservedEndsATenure => tenures::a_start_ends_an_actor_of_which_more_was_observed,
        Rule::CopiesEndATenure => tenures::a_stored_copy_that_has_seen_more_ends_the_tenure,
        Rule::ObjectionsAreJudgedNow => tenures::a_stale_announcement_does_not_end_a_sound_tenure,
        Rule::LostCopiesAreWrittenOver => faults::a_new_key_of_a_lost_range_is_written_at_its_coordinator,
        Rule::CreatesNeedProof => faults::a_lost_copy_that_may_be_the_only_one_is_written_over_but_by_creates,
        Rule::LossesEndATenureOnce => bounds::a_lost_range_ends_a_partitions_tenure_once_however_many_keys_it_has,
        Rule::UntoldDamageEndsATenure => bounds::damaged_copies_that_are_not_told_apart_end_a_tenure_when_replaced,
        Rule::UnreadableIsReplaced => faults::a_copy_that_cannot_be_read_is_replaced_by_what_comes_in,
        Rule::PeersObject | Rule::ObjectionsEndATenure => {
            tenures::a_handshake_tells_an_old_disk_what_its_actor_has_done
        }
        Rule::ContextsEndATenure => tenures::a_clients_context_that_has_seen_more_ends_the_tenure_before_the_mint,
        Rule::RacesRenumberNoBucket => control::a_race_changes_no_buckets_n_and_keeps_the_one_that_loses_its_name,
        Rule::ReapingWaitsForItsTime => deletions::a_bucket_is_reaped_at_its_time_and_its_name_is_free_then,
        Rule::WhatIsReapedStaysReaped => deletions::an_id_that_was_reaped_is_served_under_no_name,
        Rule::NamesUsedAgainHaveNewIds | Rule::PastBucketsAreNoRivals => {
            deletions::a_name_that_is_used_again_means_another_bucket_and_nobody_brings_the_old_one_back
        }
        Rule::RestorationsWinOverReapings => deletions::a_restoration_wins_over_a_reaping_that_did_not_know_of_it,
        Rule::NamesAreOfTheirLastTenant => {
            deletions::a_tenant_is_deleted_and_restored_and_its_name_is_that_of_another_one_later
        }
        Rule::LargeRequestsCostMore => fair::a_large_request_counts_as_much_as_its_bytes,
        Rule::WeightsCount => fair::flows_that_wait_are_served_by_their_weights,
        Rule::IdleFlowsEarnNothing => fair::a_flow_that_was_idle_has_no_credit,
        Rule::AFlowLeavesRoomToOthers => fair::one_flow_leaves_room_and_a_late_one_finds_some,
        Rule::WhatIsUnderWayLeavesRoom => fair::what_a_flow_has_under_way_leaves_room_to_others,
        Rule::StandingQueuesTakeNoMore => fair::a_flow_that_stays_late_is_refused_until_it_is_not,
        Rule::EmptiedQueuesAreNotStanding => fair::a_queue_that_every_turn_empties_is_not_standing,
        Rule::DebtsArePaidFirst => quotas::what_was_used_before_it_was_counted_is_owed,
        Rule::UnsignedPluginsAreNotUsed => {
            signers::a_tenant_with_signers_takes_and_activates_only_what_they_have_signed
        }
        Rule::PluginsAreWithinTheirQuota => quotas::a_tenant_pushes_no_more_plugins_than_its_quota_allows,
        Rule::WhatIsDeletedIsNotServed => {
            deletions::a_deleted_bucket_and_all_buckets_of_a_deleted_tenant_are_not_served
        }
        Rule::RatesAreKept => quotas::a_rate_lets_through_what_it_says_and_tells_when_to_come_back,
        Rule::QuotasComeBeforeTheMint => quotas::a_full_bucket_refuses_new_objects_and_siblings_and_nothing_is_written,
        Rule::TombstonesAreNoObjects => quotas::a_bucket_with_all_its_objects_takes_every_write_to_one_of_them,
        Rule::FullBucketsCanBeEmptied => quotas::a_full_bucket_takes_deletes_and_writes_that_replace_everything,
        Rule::BucketsAreOfTheirTenant => access::buckets_of_one_name_in_two_tenants_are_two_buckets,
        Rule::OtherTenantsAreClosed => access::nothing_but_an_operator_reaches_another_tenant_or_the_cluster,
        Rule::NobodyGrantsWhatHeLacks => {
            access::a_tenants_administrator_neither_makes_nor_takes_over_an_operators_token
        }
        Rule::TokensKeepTheirLimits => access::a_limited_token_opens_only_its_buckets_and_keys,
        Rule::TokensAreOfTheirTenant => access::tokens_of_one_name_in_two_tenants_are_two_tokens,
        Rule::UnsavedRingsAreUndone => ring::a_command_that_cannot_be_saved_is_undone,
        Rule::OnlyShownPlansAreApplied => ring::only_the_plan_that_was_shown_is_applied,
        Rule::StepsComeWithTheirLayouts | Rule::ReadsWaitForTheExchange | Rule::LayoutsRetireUnread => {
            ring::a_quorum_read_finds_every_acknowledged_write_during_changes
        }
        Rule::OlderWritesHaveEnded | Rule::ExchangesWaitForAcknowledgements => {
            ring::no_write_is_refused_because_of_a_change_while_all_nodes_answer
        }
        Rule::EachLayoutHasItsQuorum => copies::a_write_needs_its_quorum_by_the_copies_of_each_live_layout,
        Rule::ChangedCopiesMeet => copies::fewer_owners_take_what_the_others_have_before_they_are_read_alone,
        Rule::FallbacksHandOverFirst => copies::a_bucket_turns_strict_when_its_owners_have_what_fallbacks_hold,
        Rule::FallbacksCountWhereTheyMay => copies::a_fallback_counts_for_nothing_while_an_older_layout_is_strict,
        Rule::UnknownLayoutsAreNotRead | Rule::SkippedOwnersTakeFirst => {
            copies::an_owner_that_a_change_of_copies_has_skipped_does_not_count_for_readers_that_are_ahead_of_it
        }
        Rule::OvertakenRequestsGoOn => layouts::a_write_by_an_older_layout_is_refused_where_that_is_closed,
        Rule::ChangesOfCopiesAreComparedFirst => ring::a_change_of_copies_is_of_what_its_operator_has_seen,
        Rule::OneLayoutIsRead => layouts::a_read_needs_nobody_who_is_an_owner_in_the_newest_layout_only,
        Rule::OlderWritesAreRefused => layouts::a_write_by_an_older_layout_is_refused_where_that_is_closed,
        Rule::RetiredLayoutsAreNotRead => layouts::a_read_by_a_retired_layout_is_refused_by_who_still_owns_the_key,
        Rule::SourcesHaveClosed | Rule::EveryOlderOwnerIsMet => {
            layouts::a_partition_is_taken_from_every_older_owner_that_has_closed
        }
        Rule::DeadOwnersAreNotWaitedFor => layouts::an_older_owner_that_is_declared_dead_is_not_waited_for,
        Rule::GainsAreOfOneLayout => layouts::what_was_taken_for_one_layout_is_taken_again_for_the_next,
        Rule::GainsCountWhenTaken => layouts::a_new_owner_does_not_count_for_readers_that_are_ahead_of_it,
        Rule::TakingsAreDurable => layouts::what_was_taken_is_on_the_disk_before_that_is_said,
        Rule::SkippedNodesAreNotComplete => {
            layouts::a_node_that_a_change_has_skipped_does_not_count_until_it_is_rebuilt
        }
        Rule::NewOwnersKnowNoRetries => layouts::a_retry_at_a_new_owner_that_forwarded_the_first_attempt_is_unknown,
        Rule::LosersMakeOwnersToo => layouts::a_retry_at_an_owner_by_the_loser_of_a_race_is_unknown,
        Rule::LostCopiesComeBeforeLayoutsRetire => {
            layouts::owners_that_have_all_lost_their_disks_meet_the_older_ones_before_these_are_retired
        }
        Rule::NewOwnersAreOfferedAnew => {
            handoff::a_fallback_that_becomes_an_owner_in_the_place_of_one_that_is_away_holds_nothing_any_more
        }
        Rule::SplitsEndTenures => splits::every_tenure_ends_with_a_split_and_none_comes_back,
        Rule::OperationsFollowTheSplit => splits::a_write_that_is_under_way_mints_for_the_half_of_its_key,
        Rule::CountersOutliveSplits => splits::an_old_disk_from_before_a_split_is_told_what_its_actor_has_done,
        Rule::FormerActorsAreJudgedToo => splits::a_disk_from_before_a_split_is_found_out_when_it_has_ended_its_actors,
        Rule::ObjectionsFindTheirActor => splits::an_objection_to_an_actor_of_before_a_split_is_heard_after_it,
        Rule::GapsAreSplit => splits::a_gap_is_one_in_both_halves_until_both_are_rebuilt,
        Rule::HoldingsAreSplit => splits::what_a_fallback_holds_is_held_in_both_halves_and_handed_over,
        Rule::PartitionsAreToldApart => splits::a_question_about_partitions_of_another_number_is_refused,
        Rule::HalvesAreUnknown | Rule::LeavesAreOfOnePartition => {
            splits::leaves_stay_but_those_that_are_whole_partitions
        }
        Rule::SplitsComeAlone => ring_splits::partitions_are_split_alone_and_up_to_a_bound,
        Rule::OnlyOwnersCompare => layouts::an_ex_owner_is_not_taken_from,
        Rule::UnsavedChangesAreUndone => control::a_change_that_cannot_be_saved_is_refused_and_undone,
        Rule::UnsavedRecordsAreNotTaken => {
            control::records_that_cannot_be_saved_hold_at_once_and_are_taken_when_they_are_saved
        }
        Rule::CatalogsAreEqualAtTheStart => {
            links::a_starting_node_serves_when_its_peers_are_ready_and_it_has_their_catalog
        }
        Rule::StartsWaitForTheLayoutsOfTheOthers => {
            links::a_starting_node_serves_when_it_has_heard_of_what_its_peers_have_retired
        }
        Rule::WhoJoinsAsksMoreThanOne => {
            joins::a_node_that_was_declared_dead_joins_as_no_member_through_one_that_has_not_heard_of_it
        }
        Rule::TheDeadWaitForTheirRemoval => {
            joins::a_node_that_was_declared_dead_joins_when_the_change_that_removes_it_has_ended
        }
        Rule::ReturnedNodesAreNotDead => links::a_member_that_was_skipped_and_has_come_back_may_leave_later,
        Rule::TheDeadComeBackEmpty => {
            links::a_node_that_was_declared_dead_and_removed_is_refused_until_it_comes_with_an_empty_directory
        }
        Rule::UnmetPeersEndTenures => replicas::a_start_that_has_not_met_every_peer_takes_new_actors,
        Rule::OutrunWritesAreNotAcked => {
            replicas::superseded_by_later_writes_of_the_minting_actor_is_no_acknowledgement
        }
        Rule::ReplacedReplicasDoNotCount => replicas::an_empty_disk_in_the_place_of_a_full_one_does_not_count_towards_r,
        Rule::ObservedIsDurable => tenures::what_was_observed_survives_the_observers_restart,
        Rule::MintersAreRemembered => tenures::an_old_disk_is_objected_to_whatever_ended_actors_old_contexts_name,
        Rule::WritesWaitForServing => scenarios::an_old_disk_is_told_before_it_takes_its_first_write,
        Rule::AcksWaitForTheDisk => writes::an_acknowledgement_waits_for_the_disks_of_w_replicas_and_a_message_does_not,
        Rule::RefusedIsNotSent => faults::a_full_disk_refuses_before_a_dot_leaves_and_goes_on_reading,
        Rule::NodesCountOnce => scenarios::an_acknowledgement_that_comes_twice_counts_once,
        Rule::RefusalsDoNotCount => faults::a_replica_whose_disk_is_full_is_counted_out,
        Rule::ErrorsAreNoCopies | Rule::UnreadableIsNotAbsent => faults::a_damaged_copy_is_an_error_and_never_absent,
        Rule::RunsNumberApart => tenures::an_answer_to_what_was_asked_before_a_restart_answers_nothing_after_it,
        Rule::JoinsKeepBoth | Rule::SiblingsStay => {
            reads::any_other_plugin_merges_for_the_reader_and_leaves_the_siblings
        }
        Rule::ClashesAreKept => tenures::a_cloned_disk_that_minted_the_same_dot_keeps_both_values_and_alarms,
        Rule::WritesReplaceWhatWasSeen => writes::a_write_is_read_from_every_node_and_a_delete_ends_it,
        Rule::ContextsAreRemembered => scenarios::what_a_writer_has_replaced_stays_replaced_where_it_arrives_later,
        Rule::WritersAreToldTheirOwn => scenarios::a_writers_context_takes_no_sibling_away,
        Rule::ReadersAreToldWhatIsShown => reads::a_reader_is_not_told_to_have_seen_what_came_while_the_plugin_ran,
        Rule::ContextsOpenOneKey => writes::contexts_of_another_key_or_made_up_are_refused_before_anything_is_written,
        Rule::LateMergesAreDropped => reads::a_merge_result_that_comes_after_its_inputs_were_overwritten_is_thrown_away,
        Rule::FoldsForgetNothing => scenarios::a_deleted_value_stays_deleted_when_an_owner_brings_it_back_after_a_fold,
        Rule::RunsAreWhole => reads::a_self_causal_plugin_folds_at_once_and_every_owner_gets_the_result,
        Rule::TombstonesAreNoValues => writes::a_create_is_refused_where_something_is_and_taken_where_it_was_deleted,
        Rule::FailuresChooseNothing => reads::a_merge_that_fails_shows_all_siblings_and_why,
        Rule::ExpiredIsHidden => reads::an_expired_value_is_hidden_and_never_reaches_a_plugin,
        Rule::ExpiryWaitsForSkew => scenarios::a_clock_that_is_ahead_drops_nothing_that_others_still_show,
        Rule::FutureStampsMoveNothing => faults::a_stamp_from_the_future_is_taken_with_an_alarm_and_moves_no_clock,
        Rule::LimitsAreKept | Rule::LimitsDropNothing | Rule::FullContextsPass => {
            limits::at_the_limit_with_a_plugin_that_traps_full_contexts_get_through
        }
        Rule::RetriesAgeByRunningTime => retries::a_step_of_the_wall_clock_makes_no_retry_a_second_write,
        Rule::RetriesOutliveRestarts => retries::a_clean_restart_keeps_the_table_and_the_start,
        Rule::RetriesOutliveTheirValue => retries::a_retry_after_an_overwrite_or_a_delete_is_not_done_again,
        Rule::StrangeRetriesAreUnknown => retries::a_retry_at_another_node_or_start_is_unknown_and_writes_nothing,
        Rule::BytesAreBounded => bounds::requests_under_way_hold_no_more_bytes_than_they_may,
        Rule::ReadsRepair => reads::a_late_copy_is_repaired_too,
        Rule::LeavesAreWrittenWithTheirObjects => trees::leaves_are_what_the_objects_come_to_and_survive_a_kill,
        Rule::PartialLeavesAreRecountedAgain => trees::a_copy_that_can_be_read_again_counts_again_without_a_read,
        Rule::WhatCannotBeReadHasALeaf => trees::a_copy_that_cannot_be_read_while_leaves_are_counted_anew_has_one,
        Rule::DoubtfulTreesAreRecounted => trees::after_a_loss_all_leaves_are_counted_anew,
        Rule::VoidTreesStayVoid => trees::a_start_that_is_not_told_of_a_loss_again_believes_no_leaf_from_before_it,
        Rule::RecountsKnowOfNewerRows => trees::what_is_written_while_leaves_are_counted_is_in_them,
        Rule::UnreadableRowsAreRecounted => {
            trees::a_copy_that_cannot_be_read_is_left_out_until_something_takes_its_place
        }
        Rule::WholeRootsAreCompared => exchange::one_key_that_differs_is_found_every_time,
        Rule::ExchangesYieldToRequests => exchange::exchanges_give_way_to_requests_that_they_delay,
        Rule::ReceiversHoldExchangesBack => {
            exchange::a_node_whose_requests_are_late_takes_few_objects_of_one_that_has_none
        }
        Rule::OneWalkAtATime => exchange::two_owners_that_both_have_what_a_third_one_lacks_bring_it_once,
        Rule::LargeRowsAreReadOffTheTurn => exchange::large_objects_are_compared_off_the_shards_turn,
        Rule::WalksAreFew => exchange::a_shard_has_few_walks_under_way,
        Rule::WrongNamesAreSearchedFor => exchange::names_that_several_differences_give_are_searched_for,
        Rule::FruitlessWalksAreRepeatedInFull => exchange::a_walk_that_changes_nothing_is_repeated_in_full,
        Rule::NewerCopiesAreBrought => exchange::of_two_versions_only_the_newer_one_travels,
        Rule::ExchangesAreOfOneEpoch => exchange::an_exchange_of_another_epoch_is_refused,
        Rule::ExchangesAreOfOneLayout => exchange::an_exchange_of_another_layout_is_refused,
        Rule::BatchesNameTheirVersion => exchange::objects_under_another_version_of_their_bucket_are_refused,
        Rule::WrongLeavesAreRecounted => exchange::a_leaf_that_its_objects_do_not_come_to_is_counted_anew,
        Rule::StoredBytesAreHashed => exchange::two_folds_of_equal_dots_by_two_plugins_meet,
        Rule::EqualObjectsOnlyAreCompared => views::copies_that_differ_are_not_compared,
        Rule::OneClaimQuarantinesNothing => views::one_claim_of_one_peer_is_told_and_quarantines_nothing,
        Rule::LonelyViewsQuarantineNothing => {
            views::one_node_that_computes_wrongly_or_lies_is_named_and_quarantines_nothing
        }
        Rule::VaryingViewsEndAPlugin => views::a_plugin_that_varies_from_call_to_call_is_quarantined_by_whoever_sees_it,
        Rule::QuarantinedPluginsAreNotRun => {
            views::a_quarantined_plugin_is_not_run_and_readers_get_all_siblings_and_the_reason
        }
        Rule::EveryShardIsRebuilt => {
            links::a_node_is_replaced_until_all_its_shards_are_rebuilt_and_its_peers_hear_of_it
        }
        Rule::EndedRebuildsStayEnded => gaps::a_rebuild_has_ended_when_a_restart_does_not_bring_it_back,
        Rule::OldDisksBeginGaps => gaps::an_old_disk_begins_gaps_in_all_partitions,
        Rule::LossesAreNoticed => gaps::a_range_that_is_lost_is_rebuilt_without_a_read,
        Rule::GapsEndByQuorum => gaps::a_replica_that_has_lost_something_counts_when_it_has_met_enough_others,
        Rule::LearntBucketsBeginGaps => {
            gaps::a_replaced_node_counts_in_no_bucket_that_it_learns_of_before_it_is_rebuilt
        }
        Rule::LossesBeginGaps => gaps::a_loss_that_the_store_reports_begins_a_gap,
        Rule::GapsAreWalkedInFull => gaps::a_gap_is_walked_with_whole_hashes,
        Rule::InvalidIsNotWritten => validation::a_value_that_the_plugin_refuses_is_not_written,
        Rule::CanariesHaveAShareOfTheKeys => trials::a_canary_merges_its_share_of_the_keys_at_every_node,
        Rule::CanariesFoldLate => trials::what_a_canary_merges_is_stored_only_at_the_limit_until_its_delay_is_over,
        Rule::GrownSharesFoldLate => trials::what_a_canary_gains_is_stored_only_when_its_delay_is_over_anew,
        Rule::ReturnedKeysFoldLate => trials::what_a_canary_gives_back_is_stored_only_when_the_delay_is_over,
        Rule::CanariesReplace => trials::a_canary_replaces_another_plugin_and_ends_when_that_is_changed,
        Rule::BothVersionsValidate => trials::a_value_must_please_both_versions_while_a_canary_runs,
        Rule::UsedPluginsAreNotDeleted => trials::a_plugin_that_is_on_trial_is_not_deleted,
        Rule::OperationsTakeTurns => {
            operations::operations_on_one_key_run_one_after_the_other_and_each_sees_those_before
        }
        Rule::OperationsSeeTheirCopy => operations::an_operation_runs_again_with_its_dot_when_the_copy_has_changed,
        Rule::ReservedDotsAreUnseen => {
            operations::an_operation_gets_a_new_dot_when_a_put_of_its_key_was_given_a_later_one
        }
    }
}

/// Whether a test passes while a rule is broken.
fn passes_without(rule: Rule, test: fn()) -> bool {
    catch_unwind(|| without(rule, test)).is_ok()
}

#[test]
fn every_rule_is_missed_by_the_test_that_is_named_for_it() {
    let survivors: Vec<Rule> = Rule::ALL.iter().copied().filter(|&rule| passes_without(rule, catcher(rule))).collect();
    assert!(survivors.is_empty(), "their tests pass while these rules are broken: {survivors:?}");
}

#[test]
fn every_module_of_the_cores_tests_is_here() {
    let modules = |text: &str| {
        let mut modules: Vec<String> =
            text.lines().filter_map(|line| line.strip_prefix("mod ")).map(str::to_owned).collect();
        modules.sort_unstable();
        modules
    };
    let of_the_core = modules(include_str!("../../../host/core/tests/machines/main.rs"));
    assert!(of_the_core.len() > 40, "{of_the_core:?}");
    assert_eq!(modules(include_str!("core.rs")), of_the_core);
}

/// What Jepsen saw of Riak's last-write-wins: 71 % of acknowledged adds lost in a healthy cluster, 92 % in a
/// partitioned one; none with siblings.
#[test]
fn last_write_wins_loses_more_than_half_of_the_acknowledged_adds_and_siblings_lose_none() {
    for partitioned in [false, true] {
        let (acknowledged, lost) = scenarios::concurrent_adds(partitioned);
        let by_stamp = without(Rule::SiblingsStay, || scenarios::concurrent_adds(partitioned));
        let state = if partitioned { "partitioned" } else { "healthy" };
        println!(
            "{state}: of {acknowledged} concurrent acknowledged adds siblings lose {lost}; last-write-wins loses {} of \
                {}",
            by_stamp.1, by_stamp.0
        );
        assert_eq!((acknowledged, lost), (300, 0));
        assert!(by_stamp.1 * 2 > by_stamp.0, "the checker of this experiment must be able to see a loss");
    }
}

-- Note that a record was merged into another, as its CRM says (B3.12).
--
-- ARGV: mailbox of the record that was merged, mailbox of the one that is left, how long to remember (ms)

note_merges({ARGV[1], ARGV[2]}, tonumber(ARGV[3]))
return 1

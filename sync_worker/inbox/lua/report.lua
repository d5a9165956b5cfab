-- Tell a gate what became of a call to its remote system (B6.3, B6.4); see gates.lua.
--
-- ARGV[1] MessagePack: the report
-- Returns 1 if the gate is shut now, else 0.

return tell_gate(cmsgpack.unpack(ARGV[1])) and 1 or 0

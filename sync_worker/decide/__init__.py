"""Pure decisions: no I/O, no clock, no framework; the same input gives the same answer.

fold   the changes of a mailbox -> what should be true now, and what is settled by that alone
match  what should be true -> which customers must be read to decide it
plan   those customers -> the one call to make, or why none
retry  what went wrong -> wait how long, or give up for which reason
"""

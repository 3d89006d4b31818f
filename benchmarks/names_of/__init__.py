"""How each library is used with a name for each customer: functions that use one name once and return what to keep."""

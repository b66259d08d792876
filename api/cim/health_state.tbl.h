/* api/cim/health_state.tbl.h - CIM_ManagedSystemElement.HealthState. ROW(value, symbol, name). */
ROW(0, CIM_HEALTH_UNKNOWN, "Unknown")
ROW(5, CIM_HEALTH_OK, "OK")
ROW(10, CIM_HEALTH_DEGRADED, "Degraded/Warning")
ROW(15, CIM_HEALTH_MINOR_FAILURE, "Minor failure")
ROW(20, CIM_HEALTH_MAJOR_FAILURE, "Major failure")
ROW(25, CIM_HEALTH_CRITICAL_FAILURE, "Critical failure")
ROW(30, CIM_HEALTH_NON_RECOVERABLE, "Non-recoverable error")

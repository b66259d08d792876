/* api/cim/copy_recovery_mode.tbl.h - CIM_Synchronized.CopyRecoveryMode. ROW(value, symbol, name). */
ROW(0, CIM_RECOVERY_UNKNOWN, "Unknown")
ROW(2, CIM_RECOVERY_AUTOMATIC, "Automatic")
ROW(3, CIM_RECOVERY_MANUAL, "Manual")

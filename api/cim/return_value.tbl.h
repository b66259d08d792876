/* api/cim/return_value.tbl.h - what the methods return, one column a way of naming it.
 * ROW(value, symbol, CreateReplica's name, the others' name). 0: finished, there is no
 * job. 4096: there is one. */
ROW(0, CIM_OK, "Job Completed with No Error", "Job Completed with No Error")
ROW(1, CIM_NOT_SUPPORTED, "Not Supported", "Not Supported")
ROW(2, CIM_UNKNOWN, "Unknown", "Unspecified Error")
ROW(3, CIM_TIMEOUT, "Timeout", "Timeout")
ROW(4, CIM_FAILED, "Failed", "Failed")
ROW(5, CIM_INVALID_PARAMETER, "Invalid Parameter", "Invalid Parameter")
ROW(6, CIM_IN_USE, "In Use", "In Use")
ROW(4096, CIM_JOB_STARTED, "Method Parameters Checked - Job Started", "Method Parameters Checked - Job Started")

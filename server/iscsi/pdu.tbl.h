/* server/iscsi/pdu.tbl.h - what an initiator may send in full feature phase.
 *
 * PDU(opcode, rules, check, RFC 7143 section). @rules: DATA it may carry data; TAG its initiator
 * task tag must not be the reserved one; FINAL the bit must be 1; DISCOVERY a discovery session
 * may send it too. @check: what its own fields must keep. An opcode without a row is unknown.
 */
PDU(PDU_NOP_OUT, DATA | FINAL | DISCOVERY, nop_check, "11.18")
PDU(PDU_SCSI_COMMAND, DATA | TAG, command_check, "11.3")
PDU(PDU_TASK_MANAGEMENT, TAG | FINAL, nothing_check, "11.5")
PDU(PDU_LOGIN, DATA, never_check, "11.12: not in full feature phase")
PDU(PDU_TEXT, DATA | TAG | DISCOVERY, text_check, "11.10")
PDU(PDU_DATA_OUT, DATA | TAG, data_check, "11.7")
PDU(PDU_LOGOUT, TAG | FINAL | DISCOVERY, logout_check, "11.14")
PDU(PDU_SNACK, 0, snack_check, "11.16: only with ErrorRecoveryLevel 1 and 2")
PDU(PDU_NOP_IN, DATA, never_check, "11.19: a target's")
PDU(PDU_SCSI_RESPONSE, DATA, never_check, "11.4: a target's")
PDU(PDU_TASK_MANAGEMENT_RESPONSE, DATA, never_check, "11.6: a target's")
PDU(PDU_LOGIN_RESPONSE, DATA, never_check, "11.13: a target's")
PDU(PDU_TEXT_RESPONSE, DATA, never_check, "11.11: a target's")
PDU(PDU_DATA_IN, DATA, never_check, "11.7: a target's")
PDU(PDU_LOGOUT_RESPONSE, DATA, never_check, "11.15: a target's")
PDU(PDU_R2T, DATA, never_check, "11.8: a target's")
PDU(PDU_ASYNC_MESSAGE, DATA, never_check, "11.9: a target's")
PDU(PDU_REJECT, DATA, never_check, "11.17: a target's")
